"""Ask this node's running fencer which devices it has, with their parameters. A program of its own.

No tool of Pacemaker tells the parameters: ``stonith_admin`` prints ids. The fencer does, to whoever asks over
its IPC as ``stonith_admin --list-registered`` does (st_client.c and fenced_commands.c of Pacemaker 2.1.5,
stonith_query: to a question without a target it answers with each device's attributes). The libraries' calls
differ between versions, and a wrong one may end the process: so this runs apart, by ``python -I -S``, prints
the answer and exits 0, or says why not and exits 1. It changes nothing.

usage: fencer_query.py LIMIT-MILLISECONDS
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_FOLDERS = ("*-linux-gnu", "../lib64", ".")
"""Under /usr/lib."""
_SERVER = b"stonith-ng"
_EXPECTS_ANSWER = 0x00000200
"""crm_ipc_client_response."""
_SYNCHRONOUS = 0x00001000
"""st_opt_sync_call."""
_QUESTION = (
    f'<stonith_command t="stonith-ng" st_async_id="standfast" st_op="st_query" st_callid="1" '
    f'st_callopt="{_SYNCHRONOUS}" st_timeout="5"><st_calldata>'
    f'<st_device_id st_origin="standfast" st_device_action="off"/></st_calldata></stonith_command>'
)


def _library(name: str) -> ctypes.CDLL:
    """Raises OSError."""
    found = sorted(path for folder in _FOLDERS for path in Path("/usr/lib").glob(f"{folder}/{name}.so.*"))
    return ctypes.CDLL(str(found[0]) if found else f"{name}.so")


def _parsed(common: ctypes.CDLL) -> int:
    """The question as the library wants it: an XML node. Its name was changed in 2.1.7 or 3.0."""
    if hasattr(common, "string2xml"):
        common.string2xml.restype = ctypes.c_void_p
        common.string2xml.argtypes = [ctypes.c_char_p]
        return int(common.string2xml(_QUESTION.encode()) or 0)
    xml = _library("libxml2")
    xml.xmlReadMemory.restype = ctypes.c_void_p
    xml.xmlReadMemory.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    xml.xmlDocGetRootElement.restype = ctypes.c_void_p
    xml.xmlDocGetRootElement.argtypes = [ctypes.c_void_p]
    text = _QUESTION.encode()
    return int(xml.xmlDocGetRootElement(xml.xmlReadMemory(text, len(text), None, None, 0)) or 0)


def _connected(common: ctypes.CDLL, client: int) -> bool:
    if hasattr(common, "crm_ipc_connect"):
        common.crm_ipc_connect.restype = ctypes.c_bool
        common.crm_ipc_connect.argtypes = [ctypes.c_void_p]
        return bool(common.crm_ipc_connect(client))
    # Since 3.0: 0 is success.
    common.pcmk__connect_generic_ipc.argtypes = [ctypes.c_void_p]
    return bool(common.pcmk__connect_generic_ipc(client) == 0)


def main() -> int:
    """Ask and print."""
    limit_ms = int(sys.argv[1])
    try:
        common = _library("libcrmcommon")
        common.crm_ipc_new.restype = ctypes.c_void_p
        common.crm_ipc_new.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        common.crm_ipc_send.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int32,
            ctypes.POINTER(ctypes.c_void_p),
        ]
        common.crm_ipc_buffer.restype = ctypes.c_char_p
        common.crm_ipc_buffer.argtypes = [ctypes.c_void_p]
        client = common.crm_ipc_new(_SERVER, 0)
        if not client or not _connected(common, client):
            sys.stderr.write("the fencer does not take a connection\n")
            return 1
        answer = ctypes.c_void_p()
        question = _parsed(common)
        done = common.crm_ipc_send(client, question, _EXPECTS_ANSWER, limit_ms, ctypes.byref(answer))
    except (OSError, AttributeError) as error:
        sys.stderr.write(f"this version of Pacemaker's libraries cannot be asked: {error}\n")
        return 1
    if done <= 0:
        sys.stderr.write(f"the fencer gave no answer ({done})\n")
        return 1
    text = common.crm_ipc_buffer(client) or b""
    if b"<st-reply" not in text:
        sys.stderr.write("the fencer's answer is none to the question\n")
        return 1
    sys.stdout.write(text.decode("utf-8", "replace"))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
