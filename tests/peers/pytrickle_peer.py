"""pytrickle's publisher or subscriber, at the command of a test.

    pytrickle_peer.py publish URL [TIMEOUT]
    pytrickle_peer.py subscribe URL START [TIMEOUT [RETRIES]]

Commands come on stdin, one per line, and reports go to stdout in the same way; bytes follow the line that says how
many there are. TIMEOUT is the total one that pytrickle puts on each request, in seconds; its own is 30.

publish:    next                 begin a segment                         done
            write N, N bytes     write to it                             done
            end                  end it                                  done
            burst N, N bytes     each line a segment, without a pause    done
            close                close the publisher                     done
subscribe:  next                 read a segment         segment SEQ, data N and N bytes..., end | broken KIND | over
            close                close the subscriber                    done

`error KIND` comes whenever pytrickle reports one.
"""

import asyncio
import importlib.util
import logging
import sys
import types

# The package's own __init__ imports its media code, and torch with that. Publisher and subscriber need neither, so the
# package is entered without it.
package = types.ModuleType("pytrickle")
package.__path__ = list(importlib.util.find_spec("pytrickle").submodule_search_locations)
sys.modules["pytrickle"] = package

from pytrickle.publisher import TricklePublisher  # noqa: E402
from pytrickle.subscriber import TrickleSubscriber  # noqa: E402


def report(line, data=b""):
    sys.stdout.buffer.write(line.encode() + b"\n" + data)
    sys.stdout.buffer.flush()


async def on_error(kind, _exception):
    report(f"error {kind}")


async def publish(commands, url, timeout=None):
    publisher = TricklePublisher(url, mime_type="video/mp2t", error_callback=on_error)
    if timeout is not None:
        publisher.connect_timeout_seconds = float(timeout)
    await publisher.start()
    writer = None
    async for name, data in commands:
        if name == "next":
            writer = await publisher.next()
        elif name == "write":
            await writer.write(data)
        elif name == "end":
            await writer.close()
        elif name == "burst":
            for line in data.splitlines():
                async with await publisher.next() as segment:
                    await segment.write(line)
        elif name == "close":
            await publisher.close()
        report("done")


async def subscribe(commands, url, start, timeout=None, retries=None):
    more = {}
    if timeout is not None:
        more["connect_timeout_seconds"] = float(timeout)
    if retries is not None:
        more["max_retries"] = int(retries)
    subscriber = TrickleSubscriber(url, start_seq=int(start), error_callback=on_error, **more)
    await subscriber.start()
    async for name, _data in commands:
        if name == "close":
            await subscriber.close()
            report("done")
            continue
        segment = await subscriber.next()
        if segment is None:
            report("over")
            continue
        report(f"segment {segment.seq()}")
        try:
            while chunk := await segment.read():
                report(f"data {len(chunk)}", chunk)
            report("end")
        except Exception as error:
            report(f"broken {type(error).__name__}")


async def read_commands():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        name, *count = line.decode().split()
        yield name, await reader.readexactly(int(count[0])) if count else b""


async def main():
    role, *arguments = sys.argv[1:]
    roles = {"publish": publish, "subscribe": subscribe}
    await roles[role](read_commands(), *arguments)


logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
