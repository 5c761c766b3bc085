"""Take rights away from this process with Landlock: which files it may open, and to which ports it may connect.

Linux only, from 5.13 on, without any privilege. It holds for the calling thread and what that starts, for good: a
process restricts itself while it has one thread. Files that are open stay open.
What a kernel cannot restrict yet is left as it is; `abi_version` says how much it can.
A restricted process also cannot read the environment or the memory of one outside (the kernel asks Landlock), and from
version 6 on not send it signals.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# linux/landlock.h; the numbers of the calls are the same on every architecture.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_RULE_PATH: Final = 1
_RULE_PORT: Final = 2
_PR_SET_NO_NEW_PRIVS: Final = 38  # linux/prctl.h

_CAPABILITY_VERSION: Final = 0x20080522  # linux/capability.h
_INTO_PROCESSES: Final = 1 << 19 | 1 << 21 | 1 << 38  # CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
_ALL_FILES: Final = (1 << 13) - 1  # the rights of version 1: also to make, remove and rename
_REFER: Final = 1 << 13
_BIND: Final = 1 << 0
_CONNECT: Final = 1 << 1
_SCOPES: Final = 0b11  # abstract sockets and signals of processes outside

_ON_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV


@dataclass(frozen=True, slots=True)
class Rules:
    """What a process may still do, by paths; those that do not exist are left out.

    `read` are files and folders to read and execute, `use` devices and files to read, write and control, `keep` folders
    in which files may be made, written and removed.
    `bind` and `connect` are TCP ports.
    """

    read: tuple[str, ...]
    use: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    bind: tuple[int, ...] = ()
    connect: tuple[int, ...] = ()


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("rights", ctypes.c_uint64), ("fd", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("rights", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi_version() -> int:
    """Return the version of Landlock that the kernel has; 0 where it has none, or it is switched off."""
    return max(_call(_CREATE_RULESET, None, 0, _ASK_VERSION), 0) if sys.platform == "linux" else 0


def handled_files(version: int) -> int:
    """Return the rights on files that Landlock of *version* controls."""
    rights = _ALL_FILES
    for since, right in ((2, _REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        rights |= right if version >= since else 0
    return rights


def restrict(rules: Rules, version: int) -> None:
    """Restrict the calling thread, and all that it starts, to *rules*, with Landlock of *version*, at least 1.

    Raises OSError.
    """
    files = handled_files(version)
    ruleset = _Ruleset(files, _BIND | _CONNECT if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    # A kernel refuses a structure that is longer than its own, unless what it does not know is zero.
    fd = _checked(_call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0))
    try:
        for paths, rights in (
            (rules.read, EXECUTE | READ_FILE | READ_DIR),
            (rules.use, READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEV),
            (rules.keep, files & ~(EXECUTE | _REFER)),
        ):
            for path in dict.fromkeys(paths):
                _allow_path(fd, path, rights & files)
        if version >= 4:
            for right, ports in ((_BIND, rules.bind), (_CONNECT, rules.connect)):
                _allow_ports(fd, right, ports)
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _drop_capabilities(libc)
        _checked(_call(_RESTRICT_SELF, fd, 0))
    finally:
        os.close(fd)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up what lets root look into other processes in spite of Landlock."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: first the lower halves, then the upper ones
    if libc.capget(header, sets) < 0:
        return  # a filter of system calls, which leaves no capabilities either
    halves = [_INTO_PROCESSES >> 32 * (index // 3) & 0xFFFFFFFF for index in range(6)]
    if any(held & half for held, half in zip(sets, halves, strict=True)):
        sets[:] = [held & ~half for held, half in zip(sets, halves, strict=True)]
        _checked(libc.capset(header, sets))


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _ON_FILES
        _checked(_call(_ADD_RULE, ruleset, _RULE_PATH, ctypes.byref(_PathRule(rights, fd)), 0))
    finally:
        os.close(fd)


def _allow_ports(ruleset: int, right: int, ports: Iterable[int]) -> None:
    for port in ports:
        _checked(_call(_ADD_RULE, ruleset, _RULE_PORT, ctypes.byref(_PortRule(right, port)), 0))


def _call(number: int, *arguments: object) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return int(syscall(ctypes.c_long(number), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
