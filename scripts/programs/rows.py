"""The rows of scripts/matrix: what is run, what it needs, and what of it says nothing about memscope."""
import sys

# CPython's modules, in batches that each take about a minute or two natively.
PYTHON = {
    "data": "test_json test_dict test_re test_list test_set test_bytes test_struct test_pickle test_sort test_heapq test_itertools",
    "memory": "test_gc test_weakref test_mmap test_ctypes test_array test_memoryview test_zlib test_sqlite3",
    "threads": "test_threading test_thread test_threading_local test_queue test_threadsignals test_sched",
    "processes": "test_subprocess test_popen test_fork1 test_wait3 test_wait4 test_pty test_cmd_line",
    "system": "test_os test_posix test_fcntl test_resource test_tempfile test_shutil",
    "signals": "test_signal test_faulthandler test_eintr",
    "sockets": "test_socket test_select test_selectors test_socketserver test_poll test_epoll test_httplib test_httpservers test_ftplib",
    "asyncio": "test_asyncio",
}

# Tests that any preloaded library changes, or whose outcome a native run does not repeat.
EXCLUDED = {
    # In a virtual machine without a host that listens, accepting waits without end, natively too.
    "sockets": ["*VSOCK*"],
    # A pool of threads is ended just after it was given tasks that sleep for five minutes: natively, too, it mostly waits for those
    # that have begun.
    "multiprocessing": ["*WithThreadsTestPool.test_terminate"],
}


def python_row(Row, name, what, excluded):
    # The interpreter itself: `python3` may be a script that looks for one.
    command = [sys.executable, "-m", "test", "--randseed", "7", "--timeout", "1700", "--junit-xml", "results.xml"]
    left_out = [word for test in excluded for word in ("--ignore", test)]
    return Row(f"python: {name}", command + left_out + what, needs=[sys.executable], suite=True)


def python_rows(Row):
    for name, modules in PYTHON.items():
        yield python_row(Row, name, modules.split(), EXCLUDED.get(name, []))


def all_rows(Row, programs, root):
    """All rows; `Row` is scripts/matrix's."""
    yield from python_rows(Row)
    for method in ("fork", "forkserver", "spawn"):
        folder = ["--testdir", programs / "multiprocessing"]
        tests = [*folder, f"test_children_by_{method}"]
        yield python_row(Row, f"multiprocessing by {method}", tests, EXCLUDED["multiprocessing"])

    def script(name, needs, interpreter="bash", suffix="", **options):
        command = [interpreter, programs / (name.lower() + suffix)]
        return Row(name, command, needs=[interpreter, *needs], **options)

    yield script("git", ["git"])
    yield script("sqlite", ["sqlite3"])
    yield script("redis", ["redis-server", "redis-benchmark", "redis-cli"])
    yield script("nginx", ["nginx", "curl"], user=True)
    yield script("postgres", [], user=True)
    yield script("node", [], "node", ".js")
    yield script("java", ["javac", "java"])
    yield script("cargo", ["cargo", "rustc"])
    yield script("make", ["make", "gcc"])
    yield script("perl", [], "perl", ".pl", environment={"PERL_HASH_SEED": "0"})
    source = root / "scripts/benchmarks/workloads/src/gen_cxx.py"
    yield Row("g++", ["bash", programs / "g++", source], needs=["g++"])
    yield script("rustc", ["rustc"])
