#!/usr/bin/env bash
# Installs Chromium, in which the tests open the pages that are written, unless
# a browser is there. On Debian as root only; elsewhere it says what to do, and
# the tests that need a browser are skipped (in CI, where CI is set, they fail).
set -euo pipefail

# The names that tests/browser.py knows.
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then
    exit 0
  fi
done

if [ ! -e /etc/debian_version ] || [ "$(id -u)" -ne 0 ]; then
  echo 'No Chromium: tests of web pages are skipped. Install it by hand, on' \
    'Debian with: sudo apt-get install chromium' >&2
  exit 0
fi

echo 'Installing Chromium (once), for the tests of web pages'
export DEBIAN_FRONTEND=noninteractive
# A page without a font shows no letters: Chromium brings none.
if ! { apt-get update -qq \
  && apt-get install -qq -y --no-install-recommends \
    chromium fonts-dejavu-core; } > /dev/null; then
  echo 'Chromium could not be installed: tests of web pages are skipped' >&2
fi
