"""Renders chat templates in a process of their own, which a kernel bounds.

A template is a program that comes with a tokenizer. The sandbox of transformers keeps
it from the interpreter, not from `{% for i in range(10 ** 9) %}` or `"a" * 10 ** 10`,
so it runs where CPU time and memory end, with a limit on what it may return. Its clock
stands still: a run must ask today what it asked yesterday.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from aprm_jax.config import ConfigError
from aprm_jax.oracle.worker import frame, read_frame

CPU_SECONDS = 5.0  # a prompt; the first compiles the template too, some 0.05 s
MEMORY_MB = 512  # beside the imports
TODAY = datetime.datetime(2024, 7, 26)  # the date that Llama 3's templates default to
_MAX_CHARS = 1 << 18  # of a rendered prompt, beside four times its messages
_REMEMBERED = 1024  # prompts
_OUT_OF_MEMORY = 3  # exit code
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from aprm_jax.data.chat_template import main; main()"
)


class TemplateRefusal(ConfigError):
    """A template that raises an error of its own on some messages."""


def render(
    template: str, messages: list[dict[str, str]], where: str, **names: Any
) -> str:
    """The text of a chat as `apply_chat_template` of transformers gives it, on `TODAY`.

    Args:
      template: Jinja, from anywhere.
      messages: with "role" and "content".
      where: the tokenizer's folder, for messages.
      **names: that the template may use: special tokens, `add_generation_prompt`.

    Raises:
      TemplateRefusal: the template raises an error on these messages, or is no Jinja.
      ConfigError: it takes more time, memory or text than a prompt may.
    """
    job = {"chat_template": template, "conversations": [messages], **names}
    limit = _MAX_CHARS + 4 * sum(len(message["content"]) for message in messages)
    return _rendered(json.dumps([job, limit, CPU_SECONDS]), limit, where)


@functools.lru_cache(_REMEMBERED)
def _rendered(job: str, limit: int, where: str) -> str:
    """Who draws many replies to a prompt asks for it as often; it is rendered once."""
    reply, code = _RENDERER.ask(frame(job.encode()))
    if reply is None:
        bounds = {
            -signal.SIGPROF: f"takes more than {CPU_SECONDS:g} s of CPU time",
            _OUT_OF_MEMORY: f"takes more than {MEMORY_MB} MiB of memory",
        }
        did = bounds.get(code, f"ends its process (exit code {code})")
        raise ConfigError(_message(where, f"{did} on a prompt"))
    text, length, error = json.loads(reply)
    if error is not None:
        raise TemplateRefusal(_message(where, f"refuses a prompt: {error}"))
    if length > limit:
        did = f"makes {length} characters of a prompt, more than {limit}"
        raise ConfigError(_message(where, did))
    return text


def _message(where: str, did: str) -> str:
    place = f"{where}: " if where else ""
    return (
        f"{place}the tokenizer's chat template {did}. Mend it, or delete it "
        "(chat_template.jinja; chat_template of tokenizer_config.json): prompts are "
        "plain text without one"
    )


class _Renderer:
    """The process, which starts with the first job and again after one that ended it.

    A job ends by itself or by its process's limits, so nobody waits for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None  # subprocess.Popen, whose pipes are there

    def ask(self, job: bytes) -> tuple[bytes | None, int]:
        """The reply, or None and the code with which the process ended."""
        with self._lock:
            process = self._process or self._start()
            try:
                with contextlib.suppress(OSError):
                    process.stdin.write(job)
                    process.stdin.flush()
                reply = read_frame(process.stdout)
            except BaseException:  # Ctrl-C: the next job must not get this one's reply
                process.kill()
                self._end()
                raise
            return (None, self._end()) if reply is None else (reply, 0)

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._lock:
            self._end()

    def _start(self) -> Any:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        if read_frame(self._process.stdout) is None:  # it says when it is ready
            code = self._end()
            raise RuntimeError(f"chat templates: {sys.executable} ends with {code}")
        return self._process

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):  # a job in its buffer, and nobody reads it
            process.stdin.close()
        process.stdout.close()
        return process.wait()


_RENDERER = _Renderer()
atexit.register(_RENDERER.close)


def main() -> None:
    """The process: renders jobs from standard input until it ends."""
    for asked in (signal.SIGINT, signal.SIGTERM):  # of the group: the parent decides
        signal.signal(asked, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # whatever a library prints is no reply
    from transformers.utils import chat_template_utils

    # Of `strftime_now`, which templates know (Llama 3.2, Mistral, gpt-oss).
    setattr(chat_template_utils, "datetime", _Clock)  # noqa: B010 - it is imported there
    _bound_memory()
    reply: Any = None
    while True:
        replies.write(frame(json.dumps(reply).encode()))
        replies.flush()
        body = read_frame(sys.stdin.buffer)
        if body is None:
            return
        job, limit, seconds = json.loads(body)
        # Not caught: by its default action the signal ends the process.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            text = chat_template_utils.render_jinja_template(**job)[0][0]
            text.encode()  # a lone surrogate is no text
            reply = [text if len(text) <= limit else "", len(text), None]
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except Exception as error:  # whatever Jinja or the template raises
            said = "".join(c for c in str(error) if c.isprintable())
            reply = [None, 0, said[:300]]
        signal.setitimer(signal.ITIMER_PROF, 0)


class _Clock(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        del tz
        return TODAY


def _bound_memory() -> None:
    """Bounds the address space, where the system knows such a limit (Linux)."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (MEMORY_MB << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
