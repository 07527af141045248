#!/bin/sh
# matrix.sh CMAKE GENERATOR BUILD_DIR VERSION: installs what was built in BUILD_DIR, and the library
# once more built with musl; then builds a small program outside of this tree against it, in every
# way, with each compiler that is here, and runs it. Prints a table of how each ended.
set -eu
cmake=$1 generator=$2 build=$3 version=$4

here=$(cd "$(dirname "$0")" && pwd)
source=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=

# attempt COMMAND...: its output is shown if it fails.
attempt() {
    "$@" >"$work/log" 2>&1 || {
        echo "FAILED: $*"
        cat "$work/log"
        failed=yes
        return 1
    } >&2
}

# cell PROGRAM COMMAND...: builds PROGRAM by COMMAND, runs it, and adds what came of it to the line.
cell() {
    program=$1
    shift
    output=failed
    if attempt "$@"; then
        output=$(LD_LIBRARY_PATH=$libdir timeout 30 "$program" 2>&1) || output="failed: $output"
        needed=no
        ! objdump -p "$program" | grep -q 'NEEDED *libpool\.so' || needed=yes
        case $program-$needed in
        *-shared-no | *-static-yes) output="linked with the other library" ;;
        esac
    fi
    if [ "$output" = "libpool $version: 6 * 7 = 42" ]; then
        line="$line$(printf '%-9s' ok)"
    else
        echo "FAILED: $program: $output" >&2
        line="$line$(printf '%-9s' FAILED)"
        failed=yes
    fi
}

# row NAME SOURCE STANDARD COMPILER: builds and runs the program in all ways.
row() {
    line=$(printf '%-14s%-13s' "$label" "$1")
    for linkage in shared static; do
        cell "$project/$1-$linkage" "$cmake" --build "$project" --target "$1-$linkage"
    done
    for linkage in $made; do
        cell "$work/made/$1-$linkage" make -C "$work/made" -f "$here/matrix/Makefile" \
            "$1-$linkage" SOURCE="$2" STANDARD="$3" COMPILER="$4"
    done
    printf '%s\n' "$line" | sed 's/ *$//'
}

# rows LABEL CC CXX: CXX is empty where there is none for the C library.
rows() {
    label=$1
    if ! command -v "$2" >/dev/null; then
        printf '%-14s%s\n' "$label" "skipped: there is no $2"
        return
    fi
    cxx=$3
    [ -z "$cxx" ] || command -v "$cxx" >/dev/null || cxx=
    project=$work/project
    rm -rf "$project" "$work/made"
    mkdir "$work/made"
    attempt "$cmake" -G "$generator" -S "$here/matrix" -B "$project" -DCMAKE_C_COMPILER="$2" \
        -DCMAKE_PREFIX_PATH="$prefix" ${cxx:+-DCMAKE_CXX_COMPILER="$cxx"} \
        -DCXX="$([ -n "$cxx" ] && echo ON || echo OFF)" || return 0
    row c99 main.c c99 "$2"
    row c11 main.c c11 "$2"
    row c17 main.c c17 "$2"
    if [ -n "$cxx" ]; then
        row c++17 main.cpp c++17 "$cxx"
        row libpool.hpp wrapper.cpp c++17 "$cxx"
    else
        printf '%-14s%s\n' "$label" "C++ skipped: there is no C++ compiler for it"
    fi
}

installed_in() { # installed_in PREFIX: what the programs below are built against
    prefix=$1
    libdir=$(dirname "$(find "$prefix" -name libpool.a)")
    PKG_CONFIG_PATH=$libdir/pkgconfig
    export PKG_CONFIG_PATH
}

made=
if command -v make >/dev/null; then
    made='shared static fully-static'
else
    echo "pkg-config and make skipped: there is no make"
fi
printf '%-27s%-18s%s\n' '' 'find_package' 'pkg-config and make'
printf '%-14s%-13s%-9s%-9s%-9s%-9s%s\n' compiler standard shared static shared static -static
attempt "$cmake" --install "$build" --prefix "$work/prefix"
installed_in "$work/prefix"
rows gcc gcc g++
rows clang clang clang++

if command -v musl-gcc >/dev/null; then
    attempt "$cmake" -G "$generator" -S "$source" -B "$work/musl" \
        --toolchain "$source/cmake/musl.cmake" -DLIBPOOL_BUILD_TESTS=OFF \
        -DLIBPOOL_BUILD_EXAMPLES=OFF -DLIBPOOL_BUILD_BENCHMARKS=OFF \
        -DCMAKE_INSTALL_PREFIX="$work/musl-prefix" -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
    attempt "$cmake" --build "$work/musl" --target install
    installed_in "$work/musl-prefix"
fi
rows musl-gcc musl-gcc ''
[ -z "$failed" ]
