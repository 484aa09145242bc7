#!/usr/bin/env bash
# Installs the Debian packages that Kvasir is built from and that are missing here.
#   packages.sh [--tests] [--no-install]
# --tests      also what the tests need (GoogleTest, clang-format, python3-venv)
# --no-install only say what is missing, and fail if something is
# Needs root or sudo, and only when something is missing.
set -euo pipefail

build=(g++ cmake ninja-build pkg-config ccache
       libboost1.81-dev libboost-json1.81-dev libboost-url1.81-dev
       librocksdb-dev libfaiss-dev libopenblas0-pthread libopenblas-dev
       libxxhash-dev libspdlog-dev libcli11-dev libtomlplusplus-dev
       libpcre2-dev libutf8proc-dev libxml2-dev libmd4c-dev)
fetch=(python3-pip unzip ca-certificates curl sqlite3-doc)
tests=(libgtest-dev libgmock-dev clang-format python3-venv)

wanted=("${build[@]}" "${fetch[@]}")
install=1
for argument in "$@"; do
  case "$argument" in
    --tests) wanted+=("${tests[@]}") ;;
    --no-install) install=0 ;;
    *) echo "packages.sh: unknown argument '$argument' (--tests, --no-install)" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# A documentation package may be installed with its files left out (minimal container images).
if [ ! -e /usr/share/doc/sqlite3/wal.html ] && [[ ! " ${missing[*]} " == *" sqlite3-doc "* ]]; then
  missing+=(sqlite3-doc)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ $install -eq 0 ]; then
  echo "Missing Debian packages: ${missing[*]}" >&2
  echo "Install them with: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  root=()
elif command -v sudo >/dev/null; then
  root=(sudo)
else
  echo "Neither root nor sudo: ask your administrator for: ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
log=$(mktemp)
if ! { "${root[@]}" apt-get update -q &&
       "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
         --no-install-recommends --reinstall -o Dpkg::Options::=--path-include='/usr/share/doc/sqlite3*' \
         "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "Installing failed; the whole log is $log" >&2
  exit 1
fi
rm -f "$log"
