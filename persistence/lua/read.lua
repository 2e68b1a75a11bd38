#!lua flags=no-writes
-- Entries from a sequence on. KEYS meta, log; ARGV first wanted seq, bytes at most
-- Answers the last and the first stored seq, then the entries as XRANGE gives them.
local m = redis.call('HMGET', KEYS[1], 'inc', 'seq')
if not m[1] then
  return {'NOJOURNAL', ''}
end
local bytes_max, bytes, found, start = tonumber(ARGV[2]), 0, {}, ARGV[1] .. '-0'
while true do
  local page = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', 8)
  for _, entry in ipairs(page) do
    bytes = bytes + #entry[2][8]
    if #found > 0 and bytes > bytes_max then
      return {'OK', m[2], found}
    end
    found[#found + 1] = entry
  end
  if #page < 8 then
    return {'OK', m[2], found}
  end
  start = '(' .. page[8][1]
end
