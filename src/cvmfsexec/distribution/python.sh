#!/bin/sh
# The interpreter, started by the loader that it was packed with: sys.executable.
_cvmfsexec_self=$0
[ "${_cvmfsexec_self#/}" != "$_cvmfsexec_self" ] || _cvmfsexec_self=$(pwd -P)/$_cvmfsexec_self
_cvmfsexec_top=${_cvmfsexec_self%/bin/*}
exec "$_cvmfsexec_top/lib/@LOADER@" --library-path "$_cvmfsexec_top/lib" \
  --argv0 "$_cvmfsexec_self" "$_cvmfsexec_top/bin/python" "$@"
