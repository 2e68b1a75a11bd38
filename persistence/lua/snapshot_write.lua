#!lua
-- Store a chunk of an unpublished snapshot. KEYS index, chunks; ARGV handle, chunk index, chunk
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or cjson.decode(stored).state ~= 'open' then
  return {'DISCARDED'}
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'OK'}
