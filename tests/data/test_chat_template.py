"""Chat templates: the text that transformers renders, and an end to hostile ones."""

from __future__ import annotations

import copy
import signal

import pytest
from tiny_tokenizers import byte_level

from aprm_jax.config import ConfigError
from aprm_jax.data import chat_template, prompts
from aprm_jax.data.chat_template import TemplateRefusal, render
from aprm_jax.data.prompted import PromptedGenerator

CHAT = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Wie viele? \u4e09 \\(x\\) {{ 7 * 7 }} \U0001f600"},
    {"role": "assistant", "content": "</think>\nFour."},
]
_BENIGN = [
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    # Qwen 3, Llama 3, Gemma: namespaces, macros, splits, loop controls, tojson.
    "{%- set ns = namespace(last=0, found=false) %}{%- for m in messages[::-1] %}"
    "{%- set index = (messages|length - 1) - loop.index0 %}{%- if m.role == 'user' %}"
    "{%- set ns.last = index %}{%- break %}{%- endif %}{%- endfor %}{{ ns.last }}"
    "{{ bos_token }}{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}",
    "{% macro turn(m) -%}<start>{{ m.role }}\n{{ m.content | tojson }}{%- endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% generation %}x{% endgeneration %}"
    "{% endfor %}{{ range(3) | list }}{{ '%05d' % 7 }}{{ eos_token * 2 }}"
    "{{ enable_thinking }}",
]


def test_a_prompt_is_rendered_once(monkeypatch):
    """Not once for each of many draws from it; another one is, and an error again."""
    asked, ask = [], chat_template._RENDERER.ask
    monkeypatch.setattr(
        chat_template._RENDERER, "ask", lambda job: asked.append(job) or ask(job)
    )
    number = str(id(asked))
    template = "{{ messages[0].content }} " + number + "{{ add_generation_prompt }}"
    texts = [
        render(template, [{"role": "user", "content": said}], "here", **names)
        for said, names in (
            ("a", {"add_generation_prompt": True}),
            ("a", {"add_generation_prompt": True}),
            ("b", {"add_generation_prompt": True}),
            ("a", {"add_generation_prompt": False}),
        )
    ]
    assert texts[0] == texts[1] == f"a {number}True"
    assert texts[2:] == [f"b {number}True", f"a {number}False"]
    assert len(asked) == 3
    for _ in range(2):
        with pytest.raises(TemplateRefusal):
            render("{{ raise_exception('no') }}", CHAT, "here")
    assert len(asked) == 5


def test_a_signal_to_all_of_a_run_leaves_the_renderer_to_its_parent():
    """A run that is told to stop has prompts to render until it has saved."""
    chats = [[{"role": "user", "content": said}] for said in ("before", "behind")]
    assert render("{{ messages[0].content }}", chats[0], "here") == "before"
    process = chat_template._RENDERER._process
    for asked in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(asked)
    assert render("{{ messages[0].content }}", chats[1], "here") == "behind"
    assert chat_template._RENDERER._process is process


@pytest.mark.parametrize("template", _BENIGN)
@pytest.mark.parametrize("reply", [True, False])
def test_the_text_is_that_of_transformers(template, reply):
    tokenizer = copy.deepcopy(byte_level())
    tokenizer.chat_template = template
    ids = prompts.chat_ids(tokenizer, CHAT, reply=reply)
    want = tokenizer.apply_chat_template(
        CHAT, tokenize=False, add_generation_prompt=reply, enable_thinking=False
    )
    assert ids == prompts.encode(tokenizer, str(want), special=True)


def test_a_template_says_the_same_date_every_day():
    """Else a run that goes on tomorrow asks something else."""
    llama = (
        "{% if not date_string is defined %}{% if strftime_now is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
        "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}{{ date_string }}"
    )
    for template in (llama, "{{ strftime_now('%d %b %Y') }}"):
        assert render(template, CHAT, "") == "26 Jul 2024"


_LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "did"),
    [
        (_LOOP, "takes more than 0.5 s of CPU time"),
        ("{{ 10 ** (10 ** 8) }}", "takes more than 0.5 s of CPU time"),
        ("{{ lipsum(n=99999999) }}", "takes more than"),
        ("{{ 'a' * 10 ** 10 }}", "takes more than 512 MiB of memory"),
        ("{{ 'a' | center(10 ** 10) }}", "takes more than 512 MiB of memory"),
        ("{{ '%09999999999d' % 1 }}", "refuses a prompt|MiB of memory"),
        ("{{ '{:>9999999999}'.format(1) }}", "refuses a prompt|MiB of memory"),
        (
            "{% set ns = namespace(a='aa') %}{% for i in range(60) %}"
            "{% set ns.a = ns.a * 64 %}{% endfor %}",
            "takes more than 512 MiB of memory",
        ),
        ("{{ 'a' * 10 ** 6 }}", r"makes 1000000 characters of a prompt, more than \d+"),
        (
            "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
            "refuses a prompt: .*recursion",
        ),
        ("{{" + "(" * 10**5 + "1" + ")" * 10**5 + "}}", "refuses a prompt|ends its"),
        (
            "{% for i in range(10 ** 9) %}{% endfor %}",
            "refuses a prompt: Range too big",
        ),
        ("{{ '\\ud800' }}", "refuses a prompt: .*surrogates"),
        ("{{ raise_exception('No \x1b[2J user') }}", r"refuses a prompt: No \[2J us"),
        ("{% if %}", "refuses a prompt: Expected an expression"),
    ],
)
def test_a_hostile_template_comes_to_an_end(template, did, monkeypatch):
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 0.5)
    with pytest.raises(ConfigError, match=rf"^models/evil: the [^:]*({did})") as raised:
        render(template, CHAT, "models/evil")
    assert "Mend it, or delete it (chat_template.jinja; " in str(raised.value)
    # The next prompt finds a process again.
    assert render("{{ messages[0].role }}", CHAT, "") == "system"


@pytest.mark.parametrize("path", ["''.__class__", "cycler.__init__.__globals__.os"])
def test_a_template_reaches_nothing_of_the_interpreter(path):
    with pytest.raises(TemplateRefusal, match="unsafe"):
        render("{{ " + path + ".mro() }}", CHAT, "")


def test_a_hostile_template_is_refused_before_the_first_prompt(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 0.5)
    given = copy.deepcopy(byte_level())
    given.chat_template = _LOOP
    given.save_pretrained(tmp_path / "evil")
    tokenizer = prompts.prepare_tokenizer(
        type(given).from_pretrained(tmp_path / "evil"), 300
    )
    with pytest.raises(ConfigError, match=r"/evil: the tokenizer's chat template tak"):
        PromptedGenerator(tokenizer, None, (64,))
    tokenizer.save_pretrained(tmp_path / "again")
    config = (tmp_path / "again" / "tokenizer_config.json").read_text()
    assert str(tmp_path) not in config  # the folder's name stays here
