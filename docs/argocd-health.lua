-- Argo CD runs this as Lua 5.1 with base, table and os alone; docs/gitops.md shows where it goes.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function holds(kind, truth)
  return conditions[kind] ~= nil and conditions[kind].status == truth
end

local function said(kind, otherwise)
  local message = conditions[kind] ~= nil and conditions[kind].message or ""
  return message ~= "" and message or otherwise or ""
end

local function health(word, message)
  return {status = word, message = message or ""}
end

-- A simulation that is a hook of a sync is a gate: the sync waits for its verdict, and fails unless it is Passed.
local is_gate = (obj.metadata.annotations or {})["argocd.argoproj.io/hook"] ~= nil

if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "the operator has not looked at it yet")
end
if holds("Stalled", "True") then -- refused, given up, or its new version was rejected
  return health("Degraded", said("Stalled"))
end
if holds("Accepted", "False") then -- the run goes on as it was before the edit
  return health("Degraded", said("Accepted"))
end
if status.phase == "Suspended" then
  return health("Suspended", "no users: spec.suspend is set")
end
if holds("RolloutPaused", "True") then
  return health("Suspended", conditions.RolloutPaused.reason .. ": " .. said("RolloutPaused"))
end
if holds("Reconciling", "True") then
  return health("Progressing", said("Reconciling", said("Ready", status.phase)))
end
if holds("Finished", "True") then
  local verdict = status.verdict .. ": " .. (status.verdictReason or "")
  return health((is_gate and status.verdict ~= "Passed") and "Degraded" or "Healthy", verdict)
end
if holds("RunnersHealthy", "False") then
  -- Of a hook no word but Progressing may be taken back: a sync that has once seen it Degraded has failed.
  local may_recover = is_gate or conditions.RunnersHealthy.reason == "RunnersStarting"
  return health(may_recover and "Progressing" or "Degraded", said("RunnersHealthy"))
end
if is_gate then
  return health("Progressing", "no verdict yet")
end
return health("Healthy", status.users.active .. " of " .. status.users.target .. " users are at work")
