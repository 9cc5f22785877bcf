"""Lua scripts and functions."""

import hashlib
import uuid

RATE = """
local n = redis.call('incr', KEYS[1])
if n == 1 then redis.call('pexpire', KEYS[1], ARGV[1]) end
if n > tonumber(ARGV[2]) then return {0, n} end
return {1, n}
"""


def scripts(s):
    r, k = s.client(), s.key
    # A body of its own: no other program may have loaded it.
    body = f"-- {uuid.uuid4()}\nreturn {{KEYS[1], ARGV[1], redis.call('incrby', KEYS[1], ARGV[1])}}"
    sha = hashlib.sha1(body.encode()).hexdigest()
    s.fails(r.evalsha, sha, 1, k("n"), 5, says="No matching script")
    s.equal(r.script_exists(sha), [False])
    s.equal(r.script_load(body), sha)
    s.equal(r.script_exists(sha, "0" * 40), [True, False])
    # Loaded through one node, known through all.
    for _ in range(3):
        s.equal(s.client().evalsha(sha, 1, k("n"), 5)[:2], [k("n").encode(), b"5"])
    limit = r.register_script(RATE)
    s.equal([limit(keys=[k("rate")], args=[60000, 3]) for _ in range(4)], [[1, 1], [1, 2], [1, 3], [0, 4]])
    with r.pipeline() as p:
        limit(keys=[k("rate2")], args=[60000, 1], client=p)
        limit(keys=[k("rate2")], args=[60000, 1], client=p)
        s.equal(p.execute(), [[1, 1], [0, 2]])
    for text in [
        "return 1",
        "return 'text'",
        "return {1, 'two', {3, {'four'}}, false, true, nil, 7}",
        "return {ok='FINE'}",
        "return {err='MINE this is my error'}",
        "return redis.error_reply('MINE another')",
        "return redis.call('nosuch')",
        "return redis.pcall('incr', 'x', 'y')['err'] ~= nil",
        "return tonumber('3.99')",
        "error('thrown')",
        "return redis.call('get', KEYS[1])",
        "redis.setresp(3) return redis.call('hgetall', KEYS[2])",
        "redis.setresp(3) return {double=3.25}",
        "redis.setresp(3) return redis.call('zscore', KEYS[3], 'm')",
        "return cjson.encode({a={1,2,3}})",
        "return #ARGV[1]",
    ]:
        r.hset(k("hash"), "f", "v")
        r.zadd(k("z"), {"m": 2.5})
        s.call(r, "EVAL", text, 3, k("n"), k("hash"), k("z"), "x" * 70000)
    if s.engine >= (7, 0):
        s.call(r, "EVAL_RO", "return redis.call('get', KEYS[1])", 1, k("n"))
        s.call(r, "EVAL_RO", "return redis.call('set', KEYS[1], 1)", 1, k("n"))
    s.call(r, "SCRIPT", "KILL")
    s.call(r, "SCRIPT", "NOSUCH")


def functions(s):
    r, k = s.client(), s.key
    name = "lib_" + s.program.replace("-", "_")
    code = f"""#!lua name={name}
redis.register_function('{name}_add', function(keys, args) return redis.call('incrby', keys[1], args[1]) end)
redis.register_function{{function_name='{name}_get', flags={{'no-writes'}},
  callback=function(keys) return redis.call('get', keys[1]) end}}
"""
    s.equal(r.function_load(code, replace=True), name.encode())
    s.fails(r.function_load, code, says="already exists")
    s.equal(s.client().fcall(f"{name}_add", 1, k("n"), 5), 5)
    s.equal(s.client().fcall_ro(f"{name}_get", 1, k("n")), b"5")
    s.fails(r.fcall_ro, f"{name}_add", 1, k("n"), 1)
    s.fails(r.fcall, "nosuch", 0)
    listed = repr(r.function_list(library=name))
    s.true(all(f"{name}_{f}" in listed for f in ("add", "get")), "FUNCTION LIST")
    s.equal(r.function_delete(name), True)


functions.needs = lambda s: s.engine >= (7, 0)

SCENARIOS = [scripts, functions]
