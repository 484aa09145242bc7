#!/bin/sh
# keep_ptxas_log.sh COMPILER ARGUMENTS...: compiles. What ptxas -v says of the kernels is kept in
# OBJECT.ptxas beside the object and not printed; everything else is.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
"$@" 2>"$object.ptxas"
result=$?
grep -vE '^ptxas info|bytes stack frame' "$object.ptxas" >&2
exit $result
