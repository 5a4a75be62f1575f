--- Med-UniC's own checkpoints. `*_encoder.pth` is the vision encoder alone, with torchvision's or timm's names; `*_total.pth` the whole network,
-- `module.` in front where it was saved from a distributed run: `encoder`, `proj_v`, `proj_t`, `proj_t_constrast`, `lm_model`.
-- Read in the official code: these parts' names and what an encoder file holds. Inferred: that a projector is a sequence of Linear, BatchNorm, ReLU,
-- Linear, BatchNorm (members 0, 1, 3, 4), and that the language model keeps `bert.` below `lm_model`.
local map = {
  source = "github.com/SUSTechBruce/Med-UniC",
  licence = "not stated for the weights; they come from MIMIC-CXR and PadChest, whose terms apply",
  verified = false,
  rewrite = { { "^state_dict%.", "" }, { "^module%.", "" } },
  rules = {
    { "^encoder%.(.*)$", "image_encoder.%1" }, { "^lm_model%.bert%.(.*)$", "text_encoder.%1" }, { "^lm_model%.(.*)$", "text_encoder.%1" },
    { "^encoder%.(.*)$", "%1" }, { "^lm_model%.bert%.(.*)$", "%1" }, { "^lm_model%.(.*)$", "%1" },
    { "^.*$", "%0" },
  },
  left_over = { "^encoder%.", "^proj_[vt]", "^lm_model%." },
  signs = { "^encoder%.", "^proj_v%." },
  words = "its other parts",
}
for theirs, ours in pairs { proj_v = "proj_v", proj_t = "proj_l", proj_t_constrast = "proj_d", proj_t_contrast = "proj_d" } do
  for member, name in pairs { ["0"] = "fc1", ["1"] = "bn1", ["3"] = "fc2", ["4"] = "bn2" } do
    table.insert(map.rules, 1, { ("^%s%%.%s%%.(.*)$"):format(theirs, member), ("%s.%s.%%1"):format(ours, name) })
  end
end
return map
