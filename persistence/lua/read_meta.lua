#!lua flags=no-writes
-- The head of a journal. KEYS meta, log
local m = redis.call('HMGET', KEYS[1], 'inc', 'epoch', 'owner', 'seq')
if not m[1] then
  return {'NOJOURNAL', ''}
end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
return {'OK', m[1], m[2], m[3], m[4], first and first[1] or ''}
