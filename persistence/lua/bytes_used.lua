#!lua flags=no-writes
-- Bytes of the stored entries, from the running count and the oldest entry's. KEYS meta, log
local count = redis.call('HGET', KEYS[1], 'byte_count')
if not count then
  return {'NOJOURNAL', ''}
end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if not first then
  return {'OK', 0}
end
return {'OK', tonumber(count) - tonumber(first[2][6])}
