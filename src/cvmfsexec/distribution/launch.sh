# Sourced by what starts a command, with three variables set: the path that the command
# sees as its own, the module to run, and the directory of the runtime (a name beside
# the command). It ends in exec, so that signals find us.
_cvmfsexec_top=${_cvmfsexec_self%/*}/$_cvmfsexec_runtime
# Who presses Ctrl-C during the imports shall not be shown where they were.
_cvmfsexec_code="import _signal, sys
if _signal.getsignal(2) is _signal.default_int_handler: _signal.signal(2, 0)
del sys.argv[0]; sys.path.insert(0, sys.argv.pop(0))
from cvmfsexec.cli.$_cvmfsexec_module import main
main()"
if [ "$_cvmfsexec_module" = exec_cmd ] || [ "$_cvmfsexec_module" = singcvmfs_cmd ]; then
  # The payload gets the environment that we got, which is not what a shell makes of it
  # (see cli/given_environment.py). Not as an argument, which everybody could read; and
  # no string may be longer than 128 KiB.
  _CVMFSEXEC_GIVEN=$(base64 -w 0 "/proc/$$/environ" 2>/dev/null)
  [ ${#_CVMFSEXEC_GIVEN} -lt 130000 ] || _CVMFSEXEC_GIVEN=
  export _CVMFSEXEC_GIVEN
fi
# What was made to be loaded into programs of the host does not fit our libc.
unset LD_PRELOAD LD_AUDIT
exec "$_cvmfsexec_top/lib/@LOADER@" --library-path "$_cvmfsexec_top/lib" \
  --argv0 "$_cvmfsexec_top/bin/python3" "$_cvmfsexec_top/bin/python" \
  -I -S -X utf8 -c "$_cvmfsexec_code" \
  "$_cvmfsexec_top/packages" "$_cvmfsexec_self" "$@"
