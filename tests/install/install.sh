#!/bin/sh
# install.sh CMAKE GENERATOR BUILD_DIR CC VERSION: installs what was built in BUILD_DIR, then builds
# and runs a program outside this tree against it, in each of the ways that the README promises.
set -eu
cmake=$1 generator=$2 build=$3 cc=$4 version=$5

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Installed in one place and moved to another: nothing may remember the first.
"$cmake" --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/prefix"
prefix=$work/prefix
libdir=$(dirname "$(find "$prefix" -name libpool.a)")

check() { # check NAME PROGRAM: the program runs and knows the installed version
    printf '%s: ' "$1"
    output=$(LD_LIBRARY_PATH=$libdir "$2")
    echo "$output"
    [ "$output" = "libpool $version: 6 * 7 = 42" ]
}

"$cmake" -G "$generator" -S "$here/consumer" -B "$work/build" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_PREFIX_PATH="$prefix" >>"$work/log"
"$cmake" --build "$work/build" >>"$work/log"
check 'find_package, shared library' "$work/build/consumer"
check 'find_package, static library' "$work/build/consumer_static"

pkg_config() {
    PKG_CONFIG_PATH=$libdir/pkgconfig pkg-config "$@" libpool
}
# shellcheck disable=SC2046 # several words each
"$cc" "$here/consumer/main.c" $(pkg_config --cflags --libs) -o "$work/shared"
check 'pkg-config, shared library' "$work/shared"

# Where there is no shared library, -lpool is the archive, and --static brings what it needs.
mkdir "$work/static_only"
cp -R "$libdir/libpool.a" "$libdir/pkgconfig" "$work/static_only"
# shellcheck disable=SC2046
"$cc" "$here/consumer/main.c" $(pkg_config --cflags) -L"$work/static_only" \
    $(pkg_config --static --libs-only-l --libs-only-other) -o "$work/static"
check 'pkg-config --static, static library' "$work/static"
! objdump -p "$work/static" | grep 'NEEDED *libpool' || { echo "it needs libpool.so"; exit 1; }
[ "$(pkg_config --modversion)" = "$version" ]
