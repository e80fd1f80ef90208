"""Serves a web page for drawing, captioning, and watching a camera.

  python -m demo
  python -m demo --workdir=runs/dog --workdir=runs/coco --pretrained=kanji
  python -m demo --workdir=runs/dog --host=0.0.0.0 --name=studio.example

Each workdir is a run of sketch_rnn, captioning, video.caption, video.classify
(of frames, one by one) or video.track. By default the page has the released
models of these kinds, which are small and were trained on Kanji and on
SYNTHETIC images and clips.

Only this machine can open the page, unless --host is passed. There is no
password: everybody who reaches the port can use it.
"""

import argparse
import contextlib
import ipaddress
import pathlib
import socket
import threading
import time
import webbrowser

import uvicorn

from captioning import inference
from demo import connections
from demo import guard
from demo import server
from demo import studio as studio_lib
from training import app
from training import compilation
from training import errors
from training import paths
from training import released

_MAX_CONNECTIONS = 1024


def _parser() -> argparse.ArgumentParser:
  parser = errors.Parser(prog='python -m demo', description=__doc__)
  parser.add_argument(
    '--workdir',
    action='append',
    default=[],
    help='workdir of a trained model; may be repeated',
  )
  parser.add_argument(
    '--pretrained',
    metavar='NAME',
    action='append',
    choices=released.names(),
    default=[],
    help=f'{released.help_text()}; may be repeated',
  )
  parser.add_argument(
    '--decoding',
    metavar='FIELD=VALUE',
    action='append',
    default=[],
    help="changes a field of the captioners' `decoding`, such as "
    'temperature=0.7; may be repeated',
  )
  parser.add_argument(
    '--seed', type=int, help='random seed of the captions that are sampled'
  )
  parser.add_argument(
    '--host',
    default='127.0.0.1',
    help='address to listen at (default: 127.0.0.1)',
  )
  parser.add_argument(
    '--port',
    type=int,
    default=8000,
    help='port; 0 for any free one (default: 8000)',
  )
  parser.add_argument(
    '--name',
    action='append',
    default=[],
    help='further host name of the page; may be repeated',
  )
  parser.add_argument(
    '--no_browser', action='store_true', help='do not open the page'
  )
  return parser


def _is_loopback(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def main(argv: list[str] | None = None) -> int:
  """Runs the server until it is interrupted."""
  parser = _parser()
  arguments = parser.parse_args(paths.arguments(parser, argv))
  app.set_up_logging()
  compilation.keep_programs()
  workdirs = [
    *(pathlib.Path(path) for path in arguments.workdir),
    *(released.path(name) for name in arguments.pretrained),
  ]
  workdirs = workdirs or studio_lib.released_models()
  if not workdirs:
    parser.error('there are no released models here: pass a --workdir')
  try:
    decoding = inference.with_seed(arguments.decoding, arguments.seed)
    for workdir in workdirs:
      studio_lib.model_kind(workdir.absolute(), decoding)
  except (FileNotFoundError, ValueError) as error:
    parser.error(str(error))
  if not 0 <= arguments.port <= 65535:
    parser.error(f'--port={arguments.port} must be from 0 to 65535')
  family = socket.AF_INET6 if ':' in arguments.host else socket.AF_INET
  try:
    listening = socket.create_server(
      (arguments.host, arguments.port), family=family, backlog=1024
    )
  except OSError as error:
    parser.error(
      f'cannot listen at {arguments.host}, port {arguments.port}: {error}. '
      'Pass another --port, 0 for any that is free'
    )
  studio = studio_lib.Studio(workdirs, decoding=decoding)
  application = server.create(
    studio,
    hosts=(*guard.LOOPBACK, arguments.host, *arguments.name),
    addresses=not _is_loopback(arguments.host),
  )
  running = uvicorn.Server(
    uvicorn.Config(
      application,
      http=connections.Connection,
      ws='wsproto',
      ws_max_size=2**20,
      limit_concurrency=_MAX_CONNECTIONS,
      timeout_graceful_shutdown=2,
      log_level='warning',
      server_header=False,
    )
  )
  name = 'localhost' if _is_loopback(arguments.host) else arguments.host
  name = f'[{name}]' if ':' in name else name
  address = f'http://{name}:{listening.getsockname()[1]}/'
  studio.start()
  print(f'The page is at {address}', flush=True)
  if not arguments.no_browser:
    threading.Thread(
      target=_open_page, args=(running, address), daemon=True
    ).start()
  with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down cleanly.
    running.run(sockets=[listening])
  return 0


def _open_page(running: uvicorn.Server, address: str):
  while not running.started:
    time.sleep(0.05)
  webbrowser.open(address)


if __name__ == '__main__':
  errors.run(main)
