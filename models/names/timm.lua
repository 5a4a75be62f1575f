--- timm's vision transformers (vit_base_patch16_224 and its kin).
return {
  source = "timm (models.vision_transformer)",
  licence = "Apache-2.0 (code); weights by model, most Apache-2.0: look at the model's page",
  verified = "files written by timm with random weights, not on downloaded ones",
  rewrite = { { "^state_dict%.", "" }, { "^module%.", "" } },
  rules = { { "^.*$", "%0" } },
  left_over = { "^head%.", "^fc_norm%.", "^pre_logits%." },
  signs = { "^blocks%.0%.attn%.qkv%.weight$", "^patch_embed%.proj%.weight$" },
  words = "the classifier",
}
