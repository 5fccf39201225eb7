// Shows a chart's values under the pointer, in a pair of charts in both at once; turns
// legends into switches; sorts tables and saves them as CSV. Without it the page is
// whole. Text enters the page through textContent only.
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
          if (hidden(svg, s.c)) return;
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
  function hidden(svg, colour) {
    var drawn = svg.querySelector(".c" + colour);
    return drawn !== null && drawn.classList.contains("off");
  }
  // A click or a key on the element; it says what it does to who cannot see it.
  function button(element, act) {
    element.setAttribute("role", "button");
    element.tabIndex = 0;
    element.addEventListener("click", act);
    element.addEventListener("keydown", function (event) {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act();
    });
  }
  document.querySelectorAll(".legend li[data-series]").forEach(function (item) {
    var scope = item.closest("figure") || item.closest("section");
    if (!scope.querySelector(".plot")) return; // a key to bars
    item.setAttribute("aria-pressed", "true");
    button(item, function () {
      var off = item.getAttribute("aria-pressed") === "true";
      item.setAttribute("aria-pressed", String(!off));
      scope.querySelectorAll(".plot svg .c" + item.dataset.series).forEach(function (d) {
        d.classList.toggle("off", off);
      });
    });
  });
  function number(row, column) {
    var text = row.cells[column].dataset.value;
    return text ? parseFloat(text) : null;
  }
  function before(a, b, column, sign) {
    var x = number(a, column), y = number(b, column);
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  }
  // Rows move within their group; a third click brings the order of the page back.
  function sort(table, head) {
    var body = table.tBodies[0], column = head.cellIndex;
    var first = head.dataset.sort, other = first === "up" ? "down" : "up";
    var now = head.dataset.now || "", next = !now ? first : now === first ? other : "";
    table.querySelectorAll("th[data-sort]").forEach(function (th) {
      th.removeAttribute("aria-sort");
      th.dataset.now = "";
    });
    head.dataset.now = next;
    if (next) head.setAttribute("aria-sort", next === "up" ? "ascending" : "descending");
    var sign = next === "up" ? 1 : -1, groups = [[]];
    table.ordered.forEach(function (row) {
      if (row.classList.contains("group")) groups.push([row], []);
      else groups[groups.length - 1].push(row);
    });
    groups.forEach(function (rows) {
      if (next && rows.length > 1) {
        rows = rows.slice().sort(function (a, b) { return before(a, b, column, sign); });
      }
      rows.forEach(function (row) { body.appendChild(row); });
    });
  }
  function csv(table) {
    function quoted(text) { return '"' + text.replace(/"/g, '""') + '"'; }
    function label(cell) { return quoted(cell.firstChild ? cell.firstChild.textContent : ""); }
    var heads = Array.from(table.tHead.rows[0].cells), names = ["group", label(heads[0])];
    heads.slice(1).forEach(function (head) {
      ["", " low", " high"].forEach(function (end) {
        names.push(quoted(head.firstChild.textContent + end));
      });
    });
    var lines = [names.join(",")], group = "";
    table.ordered.forEach(function (row) {
      if (row.classList.contains("group")) { group = row.textContent; return; }
      var fields = [quoted(group), label(row.cells[0])];
      Array.from(row.cells).slice(1).forEach(function (cell) {
        ["value", "low", "high"].forEach(function (key) {
          var text = cell.dataset[key] || "";
          fields.push(text === "nan" ? "" : text);
        });
      });
      lines.push(fields.join(","));
    });
    return lines.join("\r\n") + "\r\n";
  }
  document.querySelectorAll("table.results").forEach(function (table) {
    table.ordered = Array.from(table.tBodies[0].rows);
    table.querySelectorAll("th[data-sort]").forEach(function (head) {
      head.title = "Sort";
      button(head, function () { sort(table, head); });
      head.removeAttribute("role"); // it stays a heading, which `aria-sort` belongs to
    });
    var link = document.createElement("a"), line = document.createElement("p");
    link.textContent = "Download as CSV";
    link.download = (table.dataset.name || "table").replace(/[^\w-]+/g, "-") + ".csv";
    link.href = "data:text/csv;charset=utf-8," + encodeURIComponent("\ufeff" + csv(table));
    line.className = "download";
    line.appendChild(link);
    table.parentNode.after(line);
  });
  document.querySelectorAll(".pair").forEach(function (pair) {
    connect(Array.from(pair.querySelectorAll("svg[data-points]")));
  });
  document.querySelectorAll(".charts svg[data-points]").forEach(function (svg) {
    connect([svg]);
  });
})();
