#!/bin/sh
# cvmfsexec @VERSION@ for @MACHINE@: unpacks itself once, then runs what it unpacked.
# What follows the last line is a compressed tar archive.
_cvmfsexec_digest=@DIGEST@
_cvmfsexec_runtime=runtime-@SHORT_DIGEST@
_cvmfsexec_offset=@OFFSET@
_cvmfsexec_command=@COMMAND@
_cvmfsexec_module=@MODULE@
_cvmfsexec_tried=
_cvmfsexec_unverified=
_cvmfsexec_claim=
_cvmfsexec_made=
_cvmfsexec_scratch=

_cvmfsexec_find_file() {
  _cvmfsexec_file=$0
  [ "${_cvmfsexec_file#*/}" != "$_cvmfsexec_file" ] ||
    _cvmfsexec_file=./$_cvmfsexec_file
  [ ! -h "$_cvmfsexec_file" ] ||
    _cvmfsexec_file=$(readlink -f -- "$_cvmfsexec_file")
  [ "${_cvmfsexec_file#/}" != "$_cvmfsexec_file" ] ||
    _cvmfsexec_file=$(pwd -P)/${_cvmfsexec_file#./}
}

_cvmfsexec_owner() {
  # shellcheck disable=SC2046 # the owner is the third word
  set -- $(ls -ldn -- "$1" 2>/dev/null)
  echo "${3:-nobody}"
}

_cvmfsexec_is_ours() {
  [ -h "$1" ] || [ ! -O "$1" ] || return 0
  case $(_cvmfsexec_owner "$1") in
  0 | "$(id -u)" | "$(_cvmfsexec_owner "$_cvmfsexec_file")") return 0 ;;
  esac
  return 1
}

# Others may have made a directory, or a link, of this name where everybody can write.
_cvmfsexec_is_trusted() {
  _cvmfsexec_is_ours "$1" && { [ ! -h "$1" ] || _cvmfsexec_is_ours "$1/."; }
}

_cvmfsexec_is_ready() {
  [ -r "$1/current" ] && read -r _cvmfsexec_current <"$1/current" &&
    [ "$_cvmfsexec_current" = "$_cvmfsexec_runtime" ] &&
    [ -x "$1/$_cvmfsexec_runtime/bin/python" ] && _cvmfsexec_is_trusted "$1" ||
    return 1
  _cvmfsexec_base=$1
}

_cvmfsexec_reject() {
  _cvmfsexec_tidy
  _cvmfsexec_tried="$_cvmfsexec_tried
  $1: $2"
  return 1
}

_cvmfsexec_tidy() {
  [ -z "$_cvmfsexec_scratch" ] || rm -rf -- "$_cvmfsexec_scratch"
  [ -z "$_cvmfsexec_claim" ] || rm -rf -- "$_cvmfsexec_claim"
  [ -z "$_cvmfsexec_made" ] || rmdir -- "$_cvmfsexec_made" 2>/dev/null || :
  _cvmfsexec_scratch= _cvmfsexec_claim= _cvmfsexec_made=
}

# One of many copies unpacks, and the others wait for it. A claim is advice: whoever
# has waited long enough, or finds that the holder is gone, unpacks as well.
_cvmfsexec_wait_for_claim() {
  _cvmfsexec_polls=0 _cvmfsexec_gone=0
  until mkdir "$1/.claim-$_cvmfsexec_runtime" 2>/dev/null; do
    _cvmfsexec_holder_host= _cvmfsexec_holder=
    [ -r "$1/.claim-$_cvmfsexec_runtime/holder" ] &&
      read -r _cvmfsexec_holder_host _cvmfsexec_holder \
        <"$1/.claim-$_cvmfsexec_runtime/holder" 2>/dev/null
    if [ "$_cvmfsexec_holder_host" = "$(uname -n)" ]; then
      kill -0 "$_cvmfsexec_holder" 2>/dev/null || break
    fi
    _cvmfsexec_polls=$((_cvmfsexec_polls + 1))
    [ $_cvmfsexec_polls -lt 200 ] || break
    if [ ! -d "$1/.claim-$_cvmfsexec_runtime" ]; then # given back, or no room for it
      _cvmfsexec_gone=$((_cvmfsexec_gone + 1))
      [ $_cvmfsexec_gone -lt 10 ] || break
    fi
    sleep 0.3 2>/dev/null || sleep 1
    ! _cvmfsexec_is_ready "$1" || return 0
  done
  ! _cvmfsexec_is_ready "$1" || return 0
  _cvmfsexec_claim=$1/.claim-$_cvmfsexec_runtime
  echo "$(uname -n) $$" 2>/dev/null >"$_cvmfsexec_claim/holder"
}

_cvmfsexec_payload() {
  tail -c "+$_cvmfsexec_offset" "$_cvmfsexec_file"
}

_cvmfsexec_fail() {
  _cvmfsexec_tidy
  echo "$_cvmfsexec_command: $1" >&2
  exit 1
}

_cvmfsexec_verify() {
  command -v sha256sum >/dev/null 2>&1 || {
    _cvmfsexec_unverified=$_cvmfsexec_file # what is unpacked does it then
    return 0
  }
  _cvmfsexec_found=$(_cvmfsexec_payload | sha256sum)
  [ "${_cvmfsexec_found%% *}" = "$_cvmfsexec_digest" ] ||
    _cvmfsexec_fail "$_cvmfsexec_file is damaged: its payload has another digest"
}

_cvmfsexec_settle() {
  _cvmfsexec_said=$("$1/bin/python3" -I -S -X utf8 -c \
    "import sys; sys.path.insert(0, sys.argv.pop(1))
from cvmfsexec.cli.settle_cmd import main
main()" "$1/packages" "$1" "$2" "$_cvmfsexec_digest" \
    "$_cvmfsexec_unverified" "$_cvmfsexec_offset" 2>&1)
  case $? in
  0) ;;
  15) _cvmfsexec_fail "$_cvmfsexec_said" ;;
  *)
    _cvmfsexec_reject "$2" "${_cvmfsexec_said:-programs cannot run in it}" ||
      return 1
    ;;
  esac
  _cvmfsexec_tidy
  _cvmfsexec_is_ready "$2" || _cvmfsexec_reject "$2" "changes while it is unpacked"
}

_cvmfsexec_unpack() {
  trap '_cvmfsexec_tidy; exit 130' INT
  trap '_cvmfsexec_tidy; exit 143' TERM
  trap '_cvmfsexec_tidy; exit 129' HUP
  _cvmfsexec_wait_for_claim "$1"
  ! _cvmfsexec_is_ready "$1" || return 0
  if [ -x "$1/$_cvmfsexec_runtime/bin/python" ]; then # another version came after it
    _cvmfsexec_settle "$1/$_cvmfsexec_runtime" "$1"
    return
  fi
  _cvmfsexec_verify
  _cvmfsexec_scratch=$(mktemp -d "$1/.unpacking.XXXXXX" 2>/dev/null) ||
    _cvmfsexec_reject "$1" "cannot be written" || return 1
  _cvmfsexec_payload | gzip -dc | (cd -- "$_cvmfsexec_scratch" && tar -xf -) ||
    _cvmfsexec_reject "$1" "cannot unpack to it" || return 1
  _cvmfsexec_settle "$_cvmfsexec_scratch" "$1"
}

_cvmfsexec_try() {
  ! _cvmfsexec_is_ready "$1" || return 0
  case $1 in
  *:* | *\;*)
    _cvmfsexec_reject "$1" "a path with : or ; is no place for libraries" || return 1
    ;;
  esac
  [ -d "$1" ] || { mkdir -p -- "$1" 2>/dev/null && _cvmfsexec_made=$1; } || :
  [ -d "$1" ] && [ -w "$1" ] ||
    _cvmfsexec_reject "$1" "cannot be written" || return 1
  _cvmfsexec_is_trusted "$1" ||
    _cvmfsexec_reject "$1" "belongs to somebody else" || return 1
  _cvmfsexec_unpack "$1"
}

# In a directory for everybody we have one of our own, which nobody else can enter.
_cvmfsexec_try_private() {
  [ -d "$1" ] || return 1
  _cvmfsexec_private=$1/cvmfsexec-$(id -u)
  mkdir -m 700 -- "$_cvmfsexec_private" 2>/dev/null || :
  [ ! -h "$_cvmfsexec_private" ] && [ -O "$_cvmfsexec_private" ] ||
    _cvmfsexec_reject "$_cvmfsexec_private" "cannot be made, or is not ours" ||
    return 1
  _cvmfsexec_try "$_cvmfsexec_private/.$_cvmfsexec_command"
}

_cvmfsexec_find_file
case $CVMFSEXEC_UNPACK in
?*) [ "${CVMFSEXEC_UNPACK#/}" != "$CVMFSEXEC_UNPACK" ] ||
  CVMFSEXEC_UNPACK=$(pwd -P)/$CVMFSEXEC_UNPACK ;;
esac
{ [ -n "$CVMFSEXEC_UNPACK" ] &&
  _cvmfsexec_try "$CVMFSEXEC_UNPACK/.$_cvmfsexec_command"; } ||
  _cvmfsexec_try "${_cvmfsexec_file%/*}/.$_cvmfsexec_command" ||
  { [ "${TMPDIR#/}" != "$TMPDIR" ] && _cvmfsexec_try_private "$TMPDIR"; } ||
  _cvmfsexec_try_private /tmp ||
  _cvmfsexec_fail "cannot be unpacked; name a directory with \$CVMFSEXEC_UNPACK$_cvmfsexec_tried"
trap - HUP INT TERM
_cvmfsexec_self=$_cvmfsexec_base/$_cvmfsexec_command
. "$_cvmfsexec_base/$_cvmfsexec_runtime/launch"
exit
