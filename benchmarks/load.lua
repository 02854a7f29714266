-- Sends the requests in a file, in turn.  Each line holds a method, a token, a path and a body, separated by tabs.
-- With "lifecycle" as second argument the file holds one POST and one PUT; the resources they create are read, updated and deleted.

local sent = {}
local turn = 0
local lifecycle = false
local post, put, made = nil, nil, {{first = 1, last = 0}, {first = 1, last = 0}, {first = 1, last = 0}}

local function headers(token)
  return {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/fhir+json"}
end

local function push(queue, item)
  queue.last = queue.last + 1
  queue[queue.last] = item
end

local function pop(queue)
  local item = queue[queue.first]
  queue[queue.first] = nil
  queue.first = queue.first + 1
  return item
end

local function noted(status, answered)
  if status == 201 then
    push(made[1], answered["location"]:match("/([^/]+)/_history/"))
  end
end

function init(args)
  lifecycle = args[2] == "lifecycle"
  if lifecycle then response = noted end -- wrk reads responses only if the script defines this function
  for line in io.lines(args[1]) do
    local method, token, path, body = line:match("^(.-)\t(.-)\t(.-)\t(.*)$")
    if lifecycle then
      local one = {method = method, token = token, path = path, body = body}
      if method == "POST" then post = one else put = one end
    else
      sent[#sent + 1] = wrk.format(method, path, headers(token), body ~= "" and body or nil)
    end
  end
end

local function living()
  local step = turn % 4
  if step > 0 and made[step].first <= made[step].last then
    local id = pop(made[step])
    if step < 3 then push(made[step + 1], id) end
    local path = put.path .. "/" .. id
    if step == 1 then return wrk.format("GET", path, headers(put.token)) end
    if step == 3 then return wrk.format("DELETE", path, headers(put.token)) end
    return wrk.format("PUT", path, headers(put.token), (put.body:gsub("@id@", id)))
  end
  return wrk.format("POST", post.path, headers(post.token), post.body)
end

function request()
  turn = turn + 1
  if lifecycle then return living() end
  return sent[turn % #sent + 1]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
