#!lua flags=allow-oom
-- Compare-and-raise of the epoch. KEYS meta; ARGV incarnation, seen epoch, next epoch, token, info
-- Allowed on a full Redis: a take-over must not wait for memory, and it takes next to none.
local m = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'owner')
if m[1] ~= ARGV[1] then
  return {'NOJOURNAL', m[1] or ''}
end
if m[2] ~= ARGV[2] then
  return {'OK', m[2], m[3]}
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'owner', ARGV[4], 'owner_info', ARGV[5])
return {'OK', ARGV[3], ARGV[4]}
