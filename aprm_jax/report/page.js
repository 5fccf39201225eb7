// Shows a chart's values under the pointer; in a pair of charts, in both at once.
// Text enters the page through textContent only.
(function () {
  "use strict";
  function nearest(xs, x) {
    var best = 0;
    for (var k = 1; k < xs.length; k++) {
      if (Math.abs(xs[k] - x) < Math.abs(xs[best] - x)) best = k;
    }
    return best;
  }
  function line(className, head, value) {
    var row = document.createElement("div");
    var name = document.createElement("span");
    row.className = className;
    name.textContent = head;
    row.appendChild(name);
    if (value !== undefined) {
      var number = document.createElement("b");
      number.textContent = value;
      row.appendChild(number);
    }
    return row;
  }
  function attach(svg) {
    var points = JSON.parse(svg.dataset.points);
    var plot = svg.parentNode;
    var box = svg.viewBox.baseVal;
    var hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
    hair.setAttribute("class", "hair");
    hair.setAttribute("y1", points.t);
    hair.setAttribute("y2", points.b);
    var tip = document.createElement("div");
    tip.className = "tip";
    return {
      svg: svg,
      hide: function () {
        if (tip.parentNode) { plot.removeChild(tip); svg.removeChild(hair); }
      },
      show: function (share) {
        var k = nearest(points.x, share * box.width);
        hair.setAttribute("x1", points.x[k]);
        hair.setAttribute("x2", points.x[k]);
        tip.replaceChildren(line("", points.l[k]));
        points.s.forEach(function (s) {
          if (s.v[k] !== "–") tip.appendChild(line("c" + s.c, s.n, s.v[k]));
        });
        svg.appendChild(hair);
        plot.appendChild(tip);
        var at = points.x[k] / box.width * plot.clientWidth;
        var left = at < plot.clientWidth / 2 ? at + 12 : at - 12 - tip.offsetWidth;
        tip.style.left = Math.max(0, Math.min(left, plot.clientWidth - tip.offsetWidth)) + "px";
      }
    };
  }
  function connect(svgs) {
    var charts = svgs.map(attach);
    charts.forEach(function (chart) {
      chart.svg.addEventListener("pointermove", function (event) {
        var rect = chart.svg.getBoundingClientRect();
        var share = (event.clientX - rect.left) / rect.width;
        charts.forEach(function (c) { c.show(share); });
      });
      chart.svg.addEventListener("pointerleave", function () {
        charts.forEach(function (c) { c.hide(); });
      });
    });
  }
  document.querySelectorAll(".pair").forEach(function (pair) {
    connect(Array.from(pair.querySelectorAll("svg[data-points]")));
  });
  document.querySelectorAll(".charts svg[data-points]").forEach(function (svg) {
    connect([svg]);
  });
})();
