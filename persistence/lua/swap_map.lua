#!lua
-- Compare-and-swap of the shard map. KEYS map; ARGV expected version, next version, data
-- map: hash version, data
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then
  return {'OK', 0}
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'data', ARGV[3])
return {'OK', 1}
