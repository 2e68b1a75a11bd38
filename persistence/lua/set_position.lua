#!lua flags=allow-oom
-- Raise a reader's position. KEYS meta, positions; ARGV reader, seq
-- Allowed on a full Redis, because trimming waits for it.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'NOJOURNAL', ''}
end
local stored = redis.call('HGET', KEYS[2], ARGV[1])
if not stored or tonumber(stored) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
return {'OK'}
