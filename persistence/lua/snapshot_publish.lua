#!lua
-- Publish a complete snapshot. KEYS index, chunks; ARGV handle, end seq
-- Answers the index entry; the same answer when it was published already.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then
  return {'DISCARDED'}
end
local snapshot = cjson.decode(stored)
if snapshot.state == 'published' then
  return {'OK', stored}
end
local chunks, bytes = redis.call('HLEN', KEYS[2]), 0
for i = 0, chunks - 1 do
  local length = redis.call('HSTRLEN', KEYS[2], i)
  if length == 0 then
    return {'MISSING', i}
  end
  bytes = bytes + length
end
snapshot.state, snapshot.end_seq, snapshot.chunks, snapshot.bytes = 'published', ARGV[2], chunks, bytes
stored = cjson.encode(snapshot)
redis.call('HSET', KEYS[1], ARGV[1], stored)
return {'OK', stored}
