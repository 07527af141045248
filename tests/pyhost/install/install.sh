#!/bin/sh
# install.sh CMAKE GENERATOR BUILD_DIR CC VERSION: installs what was built in BUILD_DIR, then builds
# and runs a program outside this tree against libpool-python.
set -eu
cmake=$1 generator=$2 build=$3 cc=$4 version=$5

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Installed in one place and moved to another: nothing may remember the first.
"$cmake" --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/prefix"
prefix=$work/prefix
libdir=$(dirname "$(find "$prefix" -name libpool-python.so)")

check() { # check NAME PROGRAM: the program runs and knows the installed version
    printf '%s: ' "$1"
    output=$(LD_LIBRARY_PATH=$libdir "$2")
    echo "$output"
    [ "$output" = "libpool $version: isqrt(1000) = 31" ]
}

"$cmake" -G "$generator" -S "$here/consumer" -B "$work/build" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_C_FLAGS='-Wall -Wextra -Wpedantic -Werror' \
    -DCMAKE_CXX_FLAGS='-Wall -Wextra -Wpedantic -Werror' \
    -DCMAKE_PREFIX_PATH="$prefix" >>"$work/log"
"$cmake" --build "$work/build" >>"$work/log"
check 'find_package' "$work/build/consumer"
if [ -e "$work/build/consumer_cpp" ]; then
    check 'find_package, C++' "$work/build/consumer_cpp"
else
    echo "find_package, C++: skipped, there is no compiler"
fi

pkg_config() {
    PKG_CONFIG_PATH=$libdir/pkgconfig pkg-config "$@" libpool-python
}
for standard in c99 c11 c17; do
    # shellcheck disable=SC2046 # several words each
    "$cc" -std=$standard -Wall -Wextra -Wpedantic -Werror "$here/consumer/main.c" \
        $(pkg_config --cflags --libs) -o "$work/$standard"
    check "pkg-config, $standard" "$work/$standard"
done
[ "$(pkg_config --modversion)" = "$version" ]

# The program in the documentation, and what it says that it prints.
page=$here/../../../docs/c-python-host.md
awk '/^```/ { inside = /^```c$/ && !seen; seen = seen || inside; next } inside' "$page" \
    >"$work/page.c"
# shellcheck disable=SC2046
"$cc" -Wall -Wextra -Wpedantic -Werror "$work/page.c" $(pkg_config --cflags --libs) -o "$work/page"
promised=$(sed -n 's|.*/\* prints \(.*\) \*/|\1|p' "$work/page.c")
output=$(LD_LIBRARY_PATH=$libdir "$work/page")
echo "the documentation: $output"
[ -n "$promised" ] && [ "$output" = "$promised" ]

# libpool itself stays free of Python.
if readelf -d "$libdir/libpool.so" | grep -q 'NEEDED.*python'; then
    echo "libpool.so needs libpython"
    exit 1
fi
