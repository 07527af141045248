#!/bin/sh
# makefiles.sh CMAKE CC SOURCE_DIR: the libraries can be built from nothing by the generator that
# CMake takes by itself, with more than one job at once.
set -eu
cmake=$1 cc=$2 source=$3

command -v make >/dev/null || { echo "skipped: no make here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" -G "Unix Makefiles" -S "$source" -B "$work" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_BUILD_TYPE=Debug -DLIBPOOL_PYTHON_HOST=OFF -DLIBPOOL_BUILD_TESTS=OFF \
    -DLIBPOOL_BUILD_EXAMPLES=OFF -DLIBPOOL_BUILD_BENCHMARKS=OFF >"$work/log"
"$cmake" --build "$work" --parallel 4 >>"$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }
[ -e "$work/libpool/libpool.a" ] && [ -e "$work/libpool/libpool.so" ]
