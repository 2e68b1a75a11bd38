#!lua flags=no-writes
-- Ownership, without a write and so without an fsync. KEYS meta; ARGV incarnation, epoch
local m = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'owner')
if m[1] ~= ARGV[1] then
  return {'NOJOURNAL', m[1] or ''}
end
if m[2] ~= ARGV[2] then
  return {'FENCED', m[2], m[3]}
end
return {'OK'}
