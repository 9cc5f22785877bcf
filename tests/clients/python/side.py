"""The two sides that every scenario runs on: an engine reached directly, and the endpoint."""

import importlib
import itertools
import time

# A test waits at most so long for what must come, seconds.
PATIENCE = 20


class Side:
    """Where a scenario runs, and what it saw there."""

    def __init__(self, library, protocol, program, run, target, proxied):
        self.lib = importlib.import_module(library)
        self.aio = importlib.import_module(f"{library}.asyncio")
        self.library = library
        self.protocol = protocol
        self.program = program
        self.run = run
        self.proxied = proxied
        self.engine = tuple(target["engine"])
        self.password = target["password"]
        self.port = target["port"]
        self.shards = target["shards"]
        self.hosts = target["endpoint" if proxied else "direct"]
        self._next = itertools.cycle(self.hosts)
        self._open = []
        self.seen = []
        self.checks = 0
        self.scenario = ""

    # -- connections

    def options(self, **more):
        """Options of a client; each goes to the next node."""
        options = {
            "host": next(self._next),
            "port": self.port,
            "protocol": self.protocol,
            "socket_timeout": PATIENCE,
            "socket_connect_timeout": PATIENCE,
            # A silent second try would hide an answer that never came.
            **self.once(),
        }
        if self.password:
            options["password"] = self.password
        return {**options, **more}

    @property
    def Client(self):
        return self.lib.Redis if self.library == "redis" else self.lib.Valkey

    @property
    def AsyncClient(self):
        return self.aio.Redis if self.library == "redis" else self.aio.Valkey

    def client(self, **more):
        client = self.Client(**self.options(**more))
        self._open.append(client)
        return client

    def pool(self, **more):
        options = self.options(**more)
        kind = options.pop("kind", self.lib.ConnectionPool)
        pool = kind(**options)
        client = self.Client(connection_pool=pool)
        self._open.append(client)
        return client

    def connection(self):
        """A bare connection, for commands that are sent and answers that are read by hand."""
        pool = self.pool().connection_pool
        return pool.get_connection() if self.library == "redis" else pool.get_connection("")

    def once(self):
        """Options of a client that does not try again by itself."""
        return {"retry": self.lib.retry.Retry(self.lib.backoff.NoBackoff(), 0)}

    def again(self):
        """Options of a client that connects again by itself and repeats what failed."""
        retry = self.lib.retry.Retry(self.lib.backoff.ExponentialBackoff(cap=0.1, base=0.01), 5)
        return {"retry": retry, "retry_on_error": [self.lib.ConnectionError]}

    def close(self):
        for client in self._open:
            client.close()
            client.connection_pool.disconnect()
        self._open.clear()

    def key(self, name):
        """A key of this run and scenario alone, the same on both sides."""
        prefix = f"{self.program}:{self.run}:{self.scenario}"
        return f"{{{prefix}}}:{name}" if self.shards > 1 else f"{prefix}:{name}"

    # -- what is seen

    def see(self, what, value):
        """Notes what must be the same on both sides; returns it."""
        self.seen.append((what, value))
        return value

    def call(self, client, *words, **more):
        """Executes a command and notes the answer or the error."""
        try:
            answer = client.execute_command(*words, **more)
        except self.lib.RedisError as error:
            answer = f"{type(error).__name__}: {error}"
        return self.see(" ".join(str(w)[:40] for w in words), answer)

    def equal(self, got, wanted, what=""):
        self.checks += 1
        if got != wanted:
            raise AssertionError(f"{what}: got {short(got)}, expected {short(wanted)}")

    def true(self, condition, what):
        self.checks += 1
        if not condition:
            raise AssertionError(what)

    def fails(self, call, *args, kind=None, says="", **more):
        """The call must fail; returns the error and notes its kind and text."""
        self.checks += 1
        kind = kind or self.lib.ResponseError
        try:
            got = call(*args, **more)
        except kind as error:
            if says not in str(error):
                raise AssertionError(f"the error is {str(error)!r}, without {says!r}") from error
            # The beginning of the text: what follows may name a version.
            self.see("error", (type(error).__name__, str(error)[:30]))
            return error
        raise AssertionError(f"no {kind.__name__} but {short(got)}")

    def until(self, what, condition, pause=0.005):
        """Waits for a condition; returns what it returned."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if value := condition():
                self.checks += 1
                return value
            time.sleep(pause)
        raise AssertionError(f"{what}: not within {PATIENCE} s")


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-60:]} ({len(text)} characters)"
