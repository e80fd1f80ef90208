"""Chromium without a window, for tests that look at pages as readers do."""

import contextlib
import os
import shutil
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from playwright import sync_api

# scripts/install_chromium.sh looks for the same.
NAMES = ('chromium', 'chromium-browser', 'google-chrome')
ARGUMENTS = (
  '--no-sandbox',  # Which root needs; only our own pages are opened.
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)


def find() -> str:
  """The path of Chromium; without it the test is skipped, or fails in CI."""
  found = next(filter(None, map(shutil.which, NAMES)), None)
  if found:
    return found
  reason = f'no browser ({", ".join(NAMES)}): run scripts/install_chromium.sh'
  if os.environ.get('CI'):
    pytest.fail(f'{reason}; in CI it must be there', pytrace=False)
  pytest.skip(reason)


@contextlib.contextmanager
def start() -> Iterator[sync_api.Browser]:
  """Starts Chromium, and stops it at the end; for a fixture of a module."""
  executable = find()
  with sync_api.sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
      executable_path=executable, args=ARGUMENTS
    )
    try:
      yield chromium
    finally:
      chromium.close()


@contextlib.contextmanager
def visit(
  chromium: sync_api.Browser, address: str, **context: Any
) -> Iterator[sync_api.Page]:
  """Opens a page as a new visitor, and looks over its shoulder.

  At the end, the page must have logged no error or warning, raised nothing, and
  asked nobody but its own origin; for a file, nobody but itself.

  Args:
    chromium: the browser.
    address: of the page: file:///..., http://localhost:8000/...
    **context: of the visit: `viewport`, `color_scheme`, `reduced_motion` and
      all that Playwright's `new_context` takes.
  """
  complaints = []
  home = urllib.parse.urlsplit(address)

  def check_request(request):
    asked = urllib.parse.urlsplit(request.url)
    own = (
      request.url == address
      if home.scheme == 'file'
      else (asked.scheme, asked.netloc) == (home.scheme, home.netloc)
    )
    # What is written into the page itself is on no network.
    if not own and asked.scheme not in ('data', 'blob'):
      complaints.append(f'request for {request.url}')

  def check_message(message):
    if message.type in ('error', 'warning'):
      complaints.append(f'{message.type}: {message.text}')

  visitor = chromium.new_context(**context)
  try:
    page = visitor.new_page()
    page.on('request', check_request)
    page.on('console', check_message)
    page.on('pageerror', lambda error: complaints.append(f'raised: {error}'))
    page.goto(address)
    yield page
  finally:
    visitor.close()
  assert not complaints, complaints
