#!/bin/sh
# epoll_server.sh SERVER CLIENT: the server answers clients that come at the same time, also while
# others go away, and stops when it is told to.
set -eu
server=$1 client=$2
work=$(mktemp -d)
pid=
trap 'rm -rf "$work"; [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true' EXIT

mkfifo "$work/output"
"$server" -w 2 >"$work/output" &
pid=$!
exec 3<"$work/output"
read -r line <&3
port=${line#listening on port }

"$client" "$port" 8 200
"$client" "$port" 50 40 & first=$!
"$client" "$port" 50 40 & second=$!
"$client" "$port" 100 1000 leave
wait "$first"
wait "$second"
"$client" "$port" 1 10

kill -TERM "$pid"
wait "$pid"
pid=
cat <&3
