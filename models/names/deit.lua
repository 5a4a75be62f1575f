--- DeiT (Touvron et al., 2021): `deit_base_patch16_224-*.pth`, key `model`, timm's names with a classifier. The distilled ones have a second
-- token, for which there is no place here.
return {
  source = "github.com/facebookresearch/deit",
  licence = "Apache-2.0",
  verified = false,
  rules = { { "^model%.(.*)$", "%1" } },
  left_over = { "^model%.head%." },
  signs = { "^model%.blocks%.0%.attn%.qkv%.weight$", "^model%.head%." },
  words = "the classifier",
}
