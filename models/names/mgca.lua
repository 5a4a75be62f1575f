--- MGCA (Wang et al., NeurIPS 2022): its Lightning checkpoint. `state_dict.img_encoder_q.model` is torchvision's ResNet-50 or a ViT with timm's
-- names, `state_dict.text_encoder_q.model` a BertModel. The names of the parts are inferred from the method's code, no such file was there.
return {
  source = "github.com/HKU-MedAI/MGCA",
  licence = "Apache-2.0 (code); the weights come from MIMIC-CXR, whose terms apply",
  verified = false,
  rewrite = { { "^state_dict%.", "" } },
  rules = {
    { "^img_encoder_q%.model%.(.*)$", "%1" }, { "^text_encoder_q%.model%.(.*)$", "%1" },
    { "^img_encoder_q%.model%.(.*)$", "image_encoder.%1" }, { "^text_encoder_q%.model%.(.*)$", "text_encoder.%1" },
  },
  left_over = { "^img_encoder_q%.", "^text_encoder_q%.", "^patch_local_atten_layer%.", "^word_local_atten_layer%.", "^prototype_layer%.", "^optimizer_states%." },
  signs = { "^img_encoder_q%.model%." },
  words = "its other parts",
}
