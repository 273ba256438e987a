"""Names and shapes of the parameters of vision transformers in timm and torchvision, as vit_names.txt has them:

    python vit_names.py > vit_names.txt
"""
import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer


def put(name, model):
    for key, p in model.named_parameters():
        print(name, key, *p.shape)


print("# made by tests/golden/vit_names.py")
for name in ("vit_tiny_patch16_224", "vit_base_patch32_384"):
    put(name, timm.create_model(name))
put("vit-avg", VisionTransformer(img_size=28, patch_size=7, in_chans=1, num_classes=10, embed_dim=12, depth=2, num_heads=3,
                                 mlp_ratio=2, global_pool="avg", init_values=0.5))
put("vit-no-class-token", VisionTransformer(img_size=28, patch_size=4, in_chans=2, num_classes=10, embed_dim=12, depth=1,
                                            num_heads=3, global_pool="avg", class_token=False, qkv_bias=False))
put("vit_b_16", torchvision.models.vit_b_16())
