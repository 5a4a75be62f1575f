local unic = require "unic"

describe("models", function()
  it("ResNet-50 has torchvision's names and size", function()
    local net = require("unic.models.resnet").resnet50 { width = 8, classes = 10 }
    local dict = net:state_dict()
    for _, name in ipairs { "conv1.weight", "layer1.0.downsample.0.weight", "layer3.5.bn3.running_var", "layer4.2.conv3.weight",
      "fc.bias" } do assert.is_truthy(dict[name], name) end
    assert.is_nil(dict["layer1.1.downsample.0.weight"])
    local full = require("unic.models.resnet").resnet50()
    assert.equal(23508032, full:count())
  end)
  it("a ResNet trains and evaluates", function()
    unic.manual_seed(1)
    local net = require("unic.models.resnet").resnet_small()
    local y, map = net(unic.randn(2, 1, 32, 32))
    assert.same({ 2, 128 }, y.shape)
    assert.same({ 2, 128, 2, 2 }, map.shape)
    y:sum():backward()
    for _, p in ipairs(net:named_parameters()) do assert.is_truthy(p.value.grad, p.name) end
  end)
  it("ViT has timm's names and size", function()
    local vit = require "unic.models.vit"
    local net = vit.vit_small { depth = 2 }
    local dict = net:state_dict()
    for _, name in ipairs { "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.1.attn.qkv.bias", "blocks.0.mlp.fc1.weight",
      "norm.bias" } do assert.is_truthy(dict[name], name) end
    local y = net(unic.randn(2, 1, 64, 64))
    assert.same({ 2, 128 }, y.shape)
    y:sum():backward()
    for _, p in ipairs(net:named_parameters()) do assert.is_truthy(p.value.grad, p.name) end
    assert.raises_at(nil, "a picture of 32x32", function() net(unic.randn(1, 1, 32, 32)) end)
  end)
  it("BERT has Hugging Face's names, and padding changes nothing", function()
    unic.manual_seed(2)
    local bert = require("unic.models.bert").bert_small { vocab = 50 }
    local dict = bert:state_dict()
    for _, name in ipairs { "embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.query.weight", "encoder.layer.0.attention.output.LayerNorm.bias",
      "encoder.layer.0.intermediate.dense.weight", "encoder.layer.1.output.dense.bias" } do assert.is_truthy(dict[name], name) end
    bert:eval()
    local ids = unic.tensor({ { 2, 7, 9, 3 } }, { dtype = "i64" })
    local padded = unic.tensor({ { 2, 7, 9, 3, 0, 0 } }, { dtype = "i64" })
    local mask = unic.tensor { { true, true, true, true, false, false } }
    assert.close(bert(padded, mask):narrow(2, 1, 4), bert(ids), 1e-5)
    assert.raises_at(nil, "300 tokens", function() bert(unic.zeros(1, 300, { dtype = "i64" })) end)
  end)
  it("Med-UniC's dropout views differ, and frozen layers stay", function()
    unic.manual_seed(3)
    local medunic = require "unic.models.medunic"
    local model = medunic { vision = "resnet_small", text = "bert_small", vocab = 30, channels = 1, size = 32, dim = 16, ctr_dim = 16, hidden = 32, pool = "mean",
      position_map = true }
    model.text_encoder:freeze(1)
    local ids = unic.randint(5, 30, { 4, 6 })
    local mask = unic.ones(4, 6, { dtype = "bool" })
    local a, b = model:encode_text(ids, mask), model:encode_text(ids, mask)
    assert.is_false(unic.testing.same_bits(a, b))
    local loss = unic.losses.cvl(model:image(unic.randn(4, 1, 32, 32)), model:project_text(a)) + unic.losses.ctr(model:project_ctr(a), model:project_ctr(b))
    loss:backward()
    assert.is_nil(model.text_encoder.encoder.layer[1].attention.self.query.weight.grad)
    assert.is_truthy(model.text_encoder.encoder.layer[2].attention.self.query.weight.grad)
    assert.raises_at(nil, "did you mean 'resnet50'", function() medunic { vision = "resnt50", text = "bert_small", vocab = 9 } end)
  end)
end)
