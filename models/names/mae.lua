--- Masked autoencoders (He et al., 2022): `mae_pretrain_vit_base.pth` and its kin, key `model`; without a head, with or without the decoder.
return {
  source = "github.com/facebookresearch/mae",
  licence = "CC BY-NC 4.0 (no commercial use)",
  verified = false,
  rules = { { "^model%.(.*)$", "%1" } },
  left_over = { "^model%.decoder_", "^model%.mask_token$" },
  signs = { "^model%.blocks%.0%.attn%.qkv%.weight$" },
  without = { "^model%.head%." },
  words = "the decoder",
}
