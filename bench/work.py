"""The work that is timed, as shell commands over a tree at ``$TOP``."""

WORK = {
    "find": "find $TOP/walk | tail -n 1",
    "find -printf %s": "find $TOP/walk -printf '%s\\n' | tail -n 1",
    "ls -lR": "ls -lR $TOP/walk | tail -n 1",
    "tar small files": "tar cf - -C $TOP small | tail -c 1",
    "import modules": "cd $TOP/modules && $PYTHON -I -B -c "
    "'import sys; sys.path.insert(0, \".\"); import import_all'",
    "read sequentially": "cat $TOP/big/file | tail -c 1",
    "read at random": "$PYTHON -I -c '{random}' $TOP/big/file $READS",
}

FAR_WORK = frozenset({"find", "tar small files", "import modules"})
"""What is timed from a server far away, too: where latency shows most."""

RANDOM_READS = """
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
where = random.Random(7)
for _ in range(int(sys.argv[2])):
    os.pread(fd, 4096, where.randrange(size - 4096))
"""

TIMER = r"""
import json, os, subprocess, sys, time
command, rounds = sys.argv[1], int(sys.argv[2])
times = []
for _ in range(rounds):
    start = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.DEVNULL, check=True)
    times.append(time.perf_counter() - start)
facts = {}
if os.environ["TOP"].startswith("/cvmfs/"):
    def magic(name):
        return os.getxattr(os.environ["TOP"], "user." + name).decode()
    facts["descriptors"] = int(magic("usedfd"))
    with open(f"/proc/{magic('pid')}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                facts["resident_kb"] = int(line.split()[1])
print(json.dumps({"times_s": times, **facts}))
"""
"""Runs a command some times and prints the seconds as JSON. Its words: command, rounds.
"""


def command(name: str) -> str:
    """Return the shell command for a piece of work."""
    return WORK[name].replace("{random}", RANDOM_READS)
