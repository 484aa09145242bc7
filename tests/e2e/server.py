"""Starts the real binary on a free port with a fresh data folder, for the end-to-end tests."""
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request


class Server:
    """One `kvasir serve` process. The data folder outlives it unless it made the folder itself."""

    def __init__(self, data=None, *flags):
        self._folder = None if data else tempfile.TemporaryDirectory(prefix="kvasir-e2e-")
        self.data = data or self._folder.name
        self.log = []
        self.process = subprocess.Popen(
            [os.environ["KVASIR_BINARY"], "--data", self.data, "serve", "--port", "0", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.url = self._wait_ready()
        self._drain = threading.Thread(target=self._read, daemon=True)
        self._drain.start()

    def _wait_ready(self):
        for line in self.process.stdout:
            self.log.append(line)
            match = re.search(r"ready on (http://\S+)", line)
            if match:
                return match.group(1)
        self.process.wait()
        self.process.stdout.close()
        raise AssertionError("the server ended before it was ready:\n" + "".join(self.log))

    def _read(self):
        for line in self.process.stdout:
            self.log.append(line)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, parsed or raw body)."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method,
                                         headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                status, head, raw = reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as error:
            status, head, raw = error.code, error.headers, error.read()
        is_json = "json" in head.get("Content-Type", "") and "ndjson" not in head.get("Content-Type", "")
        return status, head, json.loads(raw) if is_json and raw else raw.decode()

    def stop(self):
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self._drain.join(timeout=10)
        self.process.stdout.close()
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._folder:
            self._folder.cleanup()
