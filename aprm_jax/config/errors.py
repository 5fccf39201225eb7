"""What an error derives from that is told in one message, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that a user can put right; the message says where and how.

    A class derives from it beside the built-in exception that it is.
    """
