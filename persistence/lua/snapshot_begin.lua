#!lua
-- Start a snapshot. KEYS index; ARGV incarnation, begin seq, a random suffix, prefix of chunk keys
-- index: hash handle -> JSON {state, ordinal, inc, begin_seq, end_seq, chunks, bytes}, and `next`
-- chunks of a snapshot: one hash at <prefix><handle>, index -> sealed chunk
local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
  if known[i] ~= 'next' and cjson.decode(known[i + 1]).state == 'open' then
    redis.call('UNLINK', ARGV[4] .. known[i])
    redis.call('HDEL', KEYS[1], known[i])
  end
end
local ordinal = redis.call('HINCRBY', KEYS[1], 'next', 1)
local handle = string.format('%08d-%s', ordinal, ARGV[3])
redis.call('HSET', KEYS[1], handle, cjson.encode({
  state = 'open', ordinal = ordinal, inc = ARGV[1], begin_seq = ARGV[2]}))
return {'OK', handle}
