"""A process with a sanitizer in it that launches kernels for us, since a sanitizer must be there from the start."""

import atexit
import contextlib
import os
import select
import subprocess
import tempfile
from pathlib import Path

from tests.simulators.builds import cached, compiler, run_compiler


class Driver:
    """A process that has a sanitizer in it from the start and launches kernels for us (host_driver.cpp)."""

    LIMIT_S = 120
    LIBRARIES = 8

    def __init__(self, sanitizer: str):
        source = Path(__file__).with_name("host_driver.cpp")
        flag = f"-fsanitize={sanitizer}"

        def make(out: Path) -> None:
            run_compiler(
                source.name, "-O1", "-g", "-std=c++17", flag, str(source), "-rdynamic", "-ldl", "-pthread", "-o", str(out)
            )

        program = cached(f"driver-{sanitizer}.exe", (source.read_text(), flag, *compiler()), make)
        options = {
            "TSAN_OPTIONS": "exitcode=0 atexit_sleep_ms=0 report_bugs=1",
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.memory = tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: SIM115
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env={**os.environ, **options}
        )
        self.libraries: set[str] = set()
        atexit.register(self.close)

    def close(self) -> None:
        """End the process and close what belongs to it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors, self.memory):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        atexit.unregister(self.close)

    @property
    def full(self) -> bool:
        """Ended, or with so many libraries in it that a sanitizer runs out of threads or mappings."""
        return self.process.poll() is not None or len(self.libraries) >= self.LIBRARIES

    def ask(self, request: str) -> str:
        """The answer to one request; AssertionError with the sanitizer's report where there is one."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        self.libraries.add(request.split()[0])
        stdin.write(request.encode() + b"\n")
        stdin.flush()
        answered, _, _ = select.select([stdout], [], [], self.LIMIT_S)
        answer = stdout.readline().decode().strip() if answered else f"nothing for {self.LIMIT_S} s"
        if answer != "0 ok":
            self.process.kill()
            self.process.wait()
            self.errors.seek(0)
            report = self.errors.read().decode(errors="replace")[:6000]
            self.close()
            raise AssertionError(f"{request.split()[1]}: {answer or 'the process ended'}\n{report}")
        return answer
