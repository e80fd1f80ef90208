"""The routes of the server: the page, the HTTP API and the WebSocket.

Requests and answers are JSON, except images and videos, which are sent as they
are. A drawing is a list of lines [[x, y], ...] in pixels of a model's drawing
space, y downwards. An error is {"error": "message"}.
"""

import asyncio
import contextlib
import pathlib
import tempfile
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette import applications
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing
from starlette import websockets

from demo import captions
from demo import conversation
from demo import guard
from demo import messages
from demo import queues
from demo import sketching
from demo import studio as studio_lib
from demo import watching
from sketch_rnn import latent
from sketch_rnn import strokes

PAGE = pathlib.Path(__file__).parent / 'page'
# Extension of a file of the page -> its Content-Type; no others are sent.
_TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.webmanifest': 'application/manifest+json',
}
_MAX_STEPS = 12


def create(
  studio: studio_lib.Studio,
  *,
  hosts: Collection[str] = guard.LOOPBACK,
  addresses: bool = False,
  limits: messages.Limits | None = None,
  page: pathlib.Path = PAGE,
) -> guard.Guard:
  """Creates the ASGI application.

  Args:
    studio: the models; stopped when the server stops.
    hosts: allowed host names.
    addresses: also allow IP addresses.
    limits: upper limits on requests.
    page: directory of the files of the page.
  """
  handlers = _Handlers(studio, limits or messages.Limits(), page)

  @contextlib.asynccontextmanager
  async def lifespan(_):
    yield
    await asyncio.to_thread(studio.stop)

  post = ['POST']
  app = applications.Starlette(
    routes=[
      routing.Route('/', handlers.index),
      routing.Route('/page/{name}', handlers.file),
      routing.Route('/api/models', handlers.models),
      routing.Route('/api/encode', handlers.encode, methods=post),
      routing.Route('/api/decode', handlers.decode, methods=post),
      routing.Route('/api/sample', handlers.sample, methods=post),
      routing.Route('/api/mimic', handlers.mimic, methods=post),
      routing.Route('/api/interpolate', handlers.interpolate, methods=post),
      routing.Route('/api/analogy', handlers.analogy, methods=post),
      routing.Route('/api/svg', handlers.svg, methods=post),
      routing.Route('/api/caption', handlers.caption, methods=post),
      routing.Route('/api/caption_video', handlers.caption_video, methods=post),
      routing.WebSocketRoute('/api/draw', handlers.draw),
      routing.WebSocketRoute('/api/watch', handlers.watch),
    ],
    exception_handlers={
      messages.Problem: _problem_response,
      queues.Busy: _busy_response,
      exceptions.HTTPException: _http_response,
      Exception: _failure_response,
    },
    lifespan=lifespan,
  )
  app.router.redirect_slashes = False
  return guard.Guard(app, hosts=hosts, addresses=addresses)


def _error_response(
  status: int, text: str, headers: Mapping[str, str] | None = None
) -> responses.JSONResponse:
  return responses.JSONResponse({'error': text}, status, headers)


async def _problem_response(_, problem):
  return _error_response(problem.status, problem.text)


async def _busy_response(_, busy):
  return _error_response(503, f'busy: {busy}', {'Retry-After': '1'})


async def _http_response(_, error):
  text = {
    404: 'there is nothing at this address',
    405: 'this address does not support the method: see demo/server.py',
  }.get(error.status_code, error.detail)
  return _error_response(error.status_code, text, error.headers)


async def _failure_response(_, error):
  del error  # It is in the log; clients do not see it.
  return _error_response(500, 'the request failed on the server: see its log')


class _Handlers:
  """The handlers of the routes."""

  def __init__(
    self,
    studio: studio_lib.Studio,
    limits: messages.Limits,
    page: pathlib.Path,
  ):
    self._studio = studio
    self._limits = limits
    # A fixed table: names from clients are never used as paths.
    self._files = {
      path.name: path
      for path in (sorted(page.iterdir()) if page.is_dir() else ())
      if path.suffix in _TYPES and path.is_file()
    }
    self._uploads = self._watching = 0
    self._decoding = asyncio.Semaphore(2)

  # The page.

  async def index(self, _: requests.Request) -> responses.Response:
    """GET /."""
    return self._send_file('index.html')

  async def file(self, request: requests.Request) -> responses.Response:
    """GET /page/NAME."""
    return self._send_file(request.path_params['name'])

  def _send_file(self, name: str) -> responses.Response:
    path = self._files.get(name)
    if path is None:
      raise exceptions.HTTPException(404)
    # Set as a header, since Starlette would add a charset to any text type.
    return responses.Response(
      path.read_bytes(),
      headers={
        'Content-Type': _TYPES[path.suffix],
        'Cache-Control': 'no-cache',
      },
    )

  async def models(self, _: requests.Request) -> responses.Response:
    """GET /api/models."""
    studio, limits = self._studio, self._limits
    return responses.JSONResponse(
      {
        'ready': studio.ready,
        'progress': studio.progress(),
        'sketchers': [
          {
            'name': name,
            'conditional': it.model.sketcher.model.conditional,
            'latent': it.model.sketcher.model.latent
            if it.model.sketcher.model.conditional
            else 0,
            'categories': list(it.model.sketcher.classes),
            'most_points': it.model.length,
            'size': it.model.size,
          }
          for name, it in list(studio.sketchers.items())
        ],
        'captioners': [
          {'name': name, 'attends': it.model.attends}
          for name, it in list(studio.captioners.items())
        ],
        'video_captioners': [
          {'name': name} for name in list(studio.video_captioners)
        ],
        'watchers': [
          {
            'name': name,
            'kind': it.model.kind,
            'rate': round(it.model.rate, 3),
          }
          for name, it in list(studio.watchers.items())
        ],
        'limits': {
          'points': limits.points,
          'lines': limits.lines,
          'count': limits.count,
          'steps': _MAX_STEPS,
          'photo_bytes': limits.image_bytes,
          'photo_pixels': limits.image_pixels,
          'photo_types': list(captions.IMAGE_TYPES),
          'video_bytes': limits.video_bytes,
          'video_types': list(captions.VIDEO_TYPES),
        },
      }
    )

  # Whole drawings, and latent vectors.

  async def sample(self, request: requests.Request) -> responses.Response:
    """POST /api/sample: drawings from nothing."""
    message = await self._message(request)
    messages.check_fields(message, ('model', 'count', *messages.SAMPLING))
    model = self._sketcher(message)
    count = messages.integer(message, 'count', 1, self._limits.count)
    return await self._drawings(model, message, count)

  async def mimic(self, request: requests.Request) -> responses.Response:
    """POST /api/mimic: a drawing, encoded and drawn again several times."""
    message = await self._message(request)
    messages.check_fields(
      message, ('model', 'lines', 'count', *messages.SAMPLING)
    )
    model = self._sketcher(message, latent=True)
    count = messages.integer(message, 'count', 1, self._limits.count)
    mean, sigma = await self._encode(model, message, ('lines',))
    return await self._drawings(
      model,
      message,
      count,
      z=np.repeat(mean, count, axis=0),
      sigma=np.repeat(sigma, count, axis=0),
    )

  async def svg(self, request: requests.Request) -> responses.Response:
    """POST /api/svg?model=NAME: the lines of a file, fitted into a drawing."""
    model = messages.find(
      self._studio.sketchers, request.query_params.get('model')
    )
    _check_type(request, ('image/svg+xml',))
    with self._upload():
      contents = await self._body(request, self._limits.message_bytes)
      async with self._decoding:
        lines = await asyncio.to_thread(
          messages.svg_lines, contents, model.model.size, self._limits
        )
    return responses.JSONResponse({'lines': lines})

  async def encode(self, request: requests.Request) -> responses.Response:
    """POST /api/encode."""
    message = await self._message(request)
    messages.check_fields(message, ('model', 'lines', 'category'))
    model = self._sketcher(message, latent=True)
    mean, sigma = await self._encode(model, message, ('lines',))
    return responses.JSONResponse(
      {'mean': mean[0].tolist(), 'sigma': sigma[0].tolist()}
    )

  async def decode(self, request: requests.Request) -> responses.Response:
    """POST /api/decode."""
    message = await self._message(request)
    messages.check_fields(message, ('model', 'z', *messages.SAMPLING))
    model = self._sketcher(message, latent=True)
    z = messages.vectors(
      message, 'z', model.model.sketcher.model.latent, self._limits
    )
    return await self._drawings(model, message, len(z), z=z)

  async def interpolate(self, request: requests.Request) -> responses.Response:
    """POST /api/interpolate: `steps` drawings, or the one at a `share`."""
    message = await self._message(request)
    fields = ('first', 'second')
    messages.check_fields(
      message, ('model', *fields, 'steps', 'share', *messages.SAMPLING)
    )
    model = self._sketcher(message, latent=True)
    share = steps = None
    if message.get('share') is not None:
      share = messages.share(message, 'share')
    else:
      steps = messages.integer(message, 'steps', 2, _MAX_STEPS)
    mean, _ = await self._encode(model, message, fields)
    z = (
      latent.path(*mean, steps)
      if share is None
      else latent.slerp(*mean, share)[None]
    )
    return await self._drawings(model, message, len(z), z=z)

  async def analogy(self, request: requests.Request) -> responses.Response:
    """POST /api/analogy: A - B + C."""
    message = await self._message(request)
    fields = ('a', 'b', 'c')
    messages.check_fields(message, ('model', *fields, *messages.SAMPLING))
    model = self._sketcher(message, latent=True)
    (a, b, c), _ = await self._encode(model, message, fields)
    return await self._drawings(model, message, 1, z=(a - b + c)[None])

  async def _encode(
    self,
    model: studio_lib.Model,
    message: dict[str, Any],
    fields: Sequence[str],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the drawings in these fields, f32[n, Z] each."""
    drawings = []
    for field in fields:
      lines = messages.lines(message, field, model.model.size, self._limits)
      sketch = messages.to_drawing(lines, model.model.size)
      messages.check_whole(sketch, model.model.length, f'the drawing {field!r}')
      drawings.append(sketch)
    return await model.worker.ask(sketching.Encode(drawings))

  async def _drawings(
    self,
    model: studio_lib.Model,
    message: dict[str, Any],
    count: int,
    **latents: np.ndarray,
  ) -> responses.Response:
    """Samples drawings; centres each in the drawing space.

    Args:
      model: the model.
      message: how points are sampled.
      count: n.
      **latents: `z` and `sigma` of `sketching.Sample`, f32[n, Z], or none.
    """
    sampled = await model.worker.ask(
      sketching.Sample(
        count,
        messages.integer(message, 'seed', 0, messages.MAX_SEED, 0),
        messages.sampling(message),
        **latents,
        label=messages.label(model.model.sketcher.classes, message),
      )
    )
    return responses.JSONResponse(
      {'drawings': [_centred(sketch, model.model.size) for sketch in sampled]}
    )

  # Images and videos.

  async def caption(self, request: requests.Request) -> responses.Response:
    """POST /api/caption?model=NAME."""
    model = messages.find(
      self._studio.captioners, request.query_params.get('model')
    )
    _check_type(request, captions.IMAGE_TYPES)
    with self._upload():
      contents = await self._body(request, self._limits.image_bytes)
      async with self._decoding:
        full = await asyncio.to_thread(
          captions.decode_image, contents, self._limits
        )
        image = await asyncio.to_thread(model.model.preprocess, full)
    captioned = await model.worker.ask(image)
    return responses.JSONResponse(
      {
        'captions': captions.captions_to_json(captioned.captions),
        'attention': captions.attention_to_json(captioned),
        'shown': model.model.crop_box(full),
      }
    )

  async def caption_video(
    self, request: requests.Request
  ) -> responses.Response:
    """POST /api/caption_video?model=NAME."""
    model = messages.find(
      self._studio.video_captioners, request.query_params.get('model')
    )
    _check_type(request, captions.VIDEO_TYPES)
    with self._upload(), tempfile.TemporaryDirectory() as directory:
      contents = await self._body(request, self._limits.video_bytes)
      path = captions.store_video(contents, directory)
      async with self._decoding:
        clip = await asyncio.to_thread(model.model.read, path, self._limits)
    captioned = await model.worker.ask(clip)
    return responses.JSONResponse(
      {
        'captions': captions.captions_to_json(captioned.captions),
        'seconds': messages.rounded(clip.seconds),
        'attention': captions.times_to_json(captioned),
      }
    )

  # The contents of requests.

  async def _message(self, request: requests.Request) -> dict[str, Any]:
    _check_type(request, ('application/json',))
    return messages.parse(await self._body(request, self._limits.message_bytes))

  async def _body(self, request: requests.Request, max_bytes: int) -> bytes:
    """Reads the body; raises a Problem beyond the maximum size."""
    problem = messages.Problem(
      413, f'more than {max_bytes} bytes: send a smaller file or message'
    )
    declared = request.headers.get('content-length', '0')
    if declared.isdecimal() and int(declared) > max_bytes:
      raise problem
    body = bytearray()
    try:
      async with asyncio.timeout(self._limits.seconds):
        async for chunk in request.stream():
          body += chunk
          if len(body) > max_bytes:
            raise problem
    except TimeoutError as error:
      raise messages.Problem(
        408, f'it took more than {self._limits.seconds:g} seconds to arrive'
      ) from error
    return bytes(body)

  @contextlib.contextmanager
  def _upload(self):
    """Limits the number of uploads in memory at the same time."""
    if self._uploads >= self._limits.uploads:
      raise queues.Busy('other files are being read: try again in a moment')
    self._uploads += 1
    try:
      yield
    finally:
      self._uploads -= 1

  def _sketcher(
    self, message: dict[str, Any], *, latent: bool = False
  ) -> studio_lib.Model:
    name = messages.text(message, 'model')
    model = messages.find(self._studio.sketchers, name)
    if latent and not model.model.sketcher.model.conditional:
      raise messages.Problem(
        400, f'{name} is a decoder alone: it has no latent vectors'
      )
    return model

  # Strokes.

  async def draw(self, socket: websockets.WebSocket):
    """WebSocket /api/draw: continues drawings, point by point."""
    await socket.accept()
    await conversation.Conversation(socket, self._studio, self._limits).run()

  # Frames of a camera.

  async def watch(self, socket: websockets.WebSocket):
    """WebSocket /api/watch: gestures, or the box of a target, by frame."""
    await socket.accept()
    if self._watching >= watching.MAX_SESSIONS:
      busy = f'busy: {self._watching} cameras are watched: try again later'
      await socket.send_json({'error': busy, 'busy': True})
      await socket.close()
      return
    self._watching += 1
    try:
      await watching.watch(socket, self._studio, self._limits)
    finally:
      self._watching -= 1


def _check_type(request: requests.Request, known: Collection[str]):
  kind = request.headers.get('content-type', '').partition(';')[0]
  if kind.strip().lower() not in known:
    raise messages.Problem(
      415, f'Content-Type must be one of {", ".join(known)}'
    )


def _centred(sketch: np.ndarray, size: int) -> list[list[list[float]]]:
  """The lines of a drawing f32[N, 3], centred in the drawing space."""
  lines = strokes.to_lines(sketch)
  if not lines:
    return []
  points = np.concatenate(lines)
  shift = size / 2 - (points.min(axis=0) + points.max(axis=0)) / 2
  return [
    [[messages.rounded(x), messages.rounded(y)] for x, y in line + shift]
    for line in lines
  ]
