import subprocess
import sys

from cvmfsexec.network import libcurl


def test_library_is_loaded_once() -> None:
    assert libcurl.load() is libcurl.load()
    assert libcurl.load().Curl


def test_library_of_another_shape_is_imported_whole() -> None:
    program = (
        "import importlib.machinery\n"
        "from cvmfsexec.network import libcurl\n"
        "find_spec = importlib.machinery.PathFinder.find_spec\n"
        "def find_others(name, *arguments):\n"
        "    return None if name == 'pycurl' else find_spec(name, *arguments)\n"
        "importlib.machinery.PathFinder.find_spec = find_others\n"
        "assert libcurl._load_extension() is None\n"
        "importlib.machinery.PathFinder.find_spec = find_spec\n"
        "assert libcurl._load_package().Curl\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
