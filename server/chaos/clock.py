"""Clocks of single processes that can be put forward or back while they run.

A small library, made by `cc` at the beginning, is loaded before all others into every process that
is started with `environment`. It shifts the wall clock alone, by what stands in a file named after
the process; the steady clock stays as it is, since that one never jumps.
"""

import ctypes.util
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

COMMAND_TIMEOUT_S = 30.0
VARIABLE = "CHAOS_CLOCKS"
NEAR_S = 60.0
_TRY_S = 3_600
_SHIFT = struct.Struct("q")
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *shift_ns;
static long long nothing;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    char path[4096];
    const char *directory = getenv("CHAOS_CLOCKS");
    shift_ns = &nothing;
    if (directory == NULL) return;
    snprintf(path, sizeof path, "%s/%d", directory, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return;
    if (ftruncate(file, sizeof(long long)) == 0) {
        void *page = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
        if (page != MAP_FAILED) shift_ns = page;
    }
    close(file);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    if (real == NULL) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(which, now);
    if (done == 0 && shift_ns != NULL && *shift_ns != 0 &&
        (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        long long ns = now->tv_nsec + *shift_ns % 1000000000LL;
        now->tv_sec += *shift_ns / 1000000000LL;
        if (ns < 0) { ns += 1000000000LL; now->tv_sec--; }
        if (ns >= 1000000000LL) { ns -= 1000000000LL; now->tv_sec++; }
        now->tv_nsec = ns;
    }
    return done;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *answer) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (answer != NULL) *answer = exact.tv_sec;
    return exact.tv_sec;
}
"""
_ASK = "import sys, time; sys.stdout.write(' '); sys.stdout.flush(); sys.stdin.read(1)\n" + (
    "print(time.time(), time.monotonic())"
)


class NoClocks(Exception):
    """This machine cannot shift the clock of one process. Says why."""


class Clocks:
    """The clocks of a run."""

    def __init__(self, directory: Path) -> None:
        """Makes the library in `directory`, and tries it on a process. NoClocks."""
        compiler = shutil.which("cc")
        if compiler is None or ctypes.util.find_library("c") is None:
            raise NoClocks("shifting a clock needs the C compiler `cc`")
        self._directory = directory / "clocks"
        self._directory.mkdir(parents=True)
        source, self._library = directory / "clocks.c", directory / "clocks.so"
        source.write_text(_SOURCE)
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", self._library, source, "-ldl"],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        if made.returncode != 0:
            raise NoClocks(f"`cc` cannot make the clock's library: {made.stderr.strip()[-200:]}")
        self._try()

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be started with, so that it, and all it starts, can be shifted."""
        return {"LD_PRELOAD": str(self._library), VARIABLE: str(self._directory)}

    def shift(self, pid: int, seconds: int) -> None:
        """From now on the process reads a wall clock that is so much ahead (or behind); 0 sets it
        right. NoClocks if it was not started for that."""
        path = self._directory / str(pid)
        try:
            # In one write of eight bytes: the process reads them as one number.
            with path.open("r+b", buffering=0) as file:
                file.write(_SHIFT.pack(seconds * 1_000_000_000))
        except FileNotFoundError:
            raise NoClocks(f"process {pid} was not started with a clock to shift") from None

    def _try(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ASK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self.environment},
        ) as asked:
            assert asked.stdout is not None
            asked.stdout.read(1)
            self.shift(asked.pid, _TRY_S)
            told, _ = asked.communicate(b"x", timeout=COMMAND_TIMEOUT_S)
        wall_s, steady_s = (float(word) for word in told.split())
        if abs(wall_s - time.time() - _TRY_S) > NEAR_S or abs(steady_s - time.monotonic()) > NEAR_S:
            raise NoClocks("the clock's library shifts nothing here")
