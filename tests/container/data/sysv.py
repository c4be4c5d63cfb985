"""System V objects for test_ipc.py: `sysv.py make KEY WORD` makes one of each kind that holds WORD
under KEY, `sysv.py show KEY` prints what each kind holds, "-" where there is no such object."""

import ctypes
import sys

IPC_CREAT, IPC_EXCL = 0o1000, 0o2000
IPC_NOWAIT, SHM_RDONLY = 0o4000, 0o10000
GETVAL, SETVAL = 12, 16
SIZE = 64
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


class Message(ctypes.Structure):
    _fields_ = (("type", ctypes.c_long), ("text", ctypes.c_char * SIZE))


def make(key: int, word: bytes) -> None:
    flags = IPC_CREAT | IPC_EXCL | 0o600
    shm, sem = libc.shmget(key, SIZE, flags), libc.semget(key, 2, flags)
    msg = libc.msgget(key, flags)
    assert min(shm, sem, msg) >= 0, ctypes.get_errno()
    address = libc.shmat(shm, None, 0)
    ctypes.memmove(address, word, len(word))
    assert libc.shmdt(ctypes.c_void_p(address)) == 0
    assert libc.semctl(sem, 1, SETVAL, len(word)) == 0
    assert libc.msgsnd(msg, ctypes.byref(Message(1, word)), len(word), 0) == 0


def show(key: int) -> None:
    """The message is taken from its queue: one look only."""
    shm, sem, msg = libc.shmget(key, 0, 0), libc.semget(key, 0, 0), libc.msgget(key, 0)
    text, found = "-", Message()
    if shm >= 0:
        text = ctypes.string_at(libc.shmat(shm, None, SHM_RDONLY)).decode()
    value = str(libc.semctl(sem, 1, GETVAL)) if sem >= 0 else "-"
    if msg >= 0:
        assert libc.msgrcv(msg, ctypes.byref(found), SIZE, 0, IPC_NOWAIT) >= 0, ctypes.get_errno()
    print(text, value, found.text.decode() if msg >= 0 else "-")


match sys.argv[1:]:
    case ["make", key, word]:
        make(int(key, 0), word.encode())
    case ["show", key]:
        show(int(key, 0))
