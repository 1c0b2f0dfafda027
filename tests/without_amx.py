"""Run a command to which Linux refuses AMX: `python tests/without_amx.py COMMAND ...`.

Every engine then takes what it takes on a CPU that has none, so that both can be measured on one machine. An engine has
to ask for AMX's tiles: https://docs.kernel.org/arch/x86/xstate.html. A filter of system calls says no, to the command
and to all that it starts: https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
"""Instructions of a filter: load a word of the call, compare it, decide."""
KIND, NUMBER, FIRST_ARGUMENT = 4, 0, 16
"""Where the call has the kind of machine, its own number, and its first argument."""
X86_64, ARCH_PRCTL, REQUEST_PERMISSION = 0xC000003E, 158, 0x1023
ALLOW, NOT_SUPPORTED = 0x7FFF0000, 0x00050000 | 95
NO_NEW_PRIVILEGES, SET_FILTER, FILTER = 38, 22, 2

RULES = [
    (LOAD, 0, 0, KIND),
    (EQUAL, 0, 5, X86_64),
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 3, ARCH_PRCTL),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (EQUAL, 0, 1, REQUEST_PERMISSION),
    (RETURN, 0, 0, NOT_SUPPORTED),
    (RETURN, 0, 0, ALLOW),
]
"""Each with how many rules to skip if a comparison holds, and if it does not."""


def refuse_amx() -> None:
    """Refuse AMX to this process and to all that it starts from now on."""
    rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in RULES))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(RULES), ctypes.addressof(rules)))
    control = ctypes.CDLL(None, use_errno=True).prctl
    if control(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or control(SET_FILTER, FILTER, program):
        raise OSError(ctypes.get_errno(), "Linux takes no filter of system calls here")


if __name__ == "__main__":
    refuse_amx()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
