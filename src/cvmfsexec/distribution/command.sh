#!/bin/sh
# Runs @COMMAND@ of the runtime that was unpacked last.
_cvmfsexec_self=$0
[ "${_cvmfsexec_self#*/}" != "$_cvmfsexec_self" ] || _cvmfsexec_self=./$_cvmfsexec_self
[ ! -h "$_cvmfsexec_self" ] || _cvmfsexec_self=$(readlink -f -- "$_cvmfsexec_self")
[ "${_cvmfsexec_self#/}" != "$_cvmfsexec_self" ] ||
  _cvmfsexec_self=$(pwd -P)/${_cvmfsexec_self#./}
_cvmfsexec_module=@MODULE@
read -r _cvmfsexec_runtime <"${_cvmfsexec_self%/*}/current"
. "${_cvmfsexec_self%/*}/$_cvmfsexec_runtime/launch"
