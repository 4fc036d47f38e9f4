"""The papers of the models: title, authors, venue, year and address. The one place where they are kept.

A model without an entry is this study's own, or a plug-in's. A test compares the titles with the docstrings
of the models.
"""

from dataclasses import dataclass

ARXIV = "https://arxiv.org/abs/"


@dataclass(frozen=True)
class Paper:
    """A published paper."""

    title: str
    authors: str  # separated by commas
    venue: str
    year: int
    link: str

    @property
    def first_author(self) -> str:
        """Family name of the first author."""
        return self.authors.split(",")[0].split()[-1]

    def bibtex(self) -> str:
        """The entry for a list of references."""
        from tal_lib.reports.citation import entry

        kind, container = (
            ("article", "journal")
            if self.venue in JOURNALS
            else ("misc", "howpublished")
            if self.venue == "arXiv"
            else ("inproceedings", "booktitle")
        )
        key = f"{self.first_author.lower()}{self.year}{self.title.split()[0].strip(':').lower()}"
        return entry(
            kind,
            key,
            {
                "author": " and ".join(name.strip() for name in self.authors.split(",")),
                "title": f"{{{self.title}}}",  # braces keep the capitals
                container: self.venue,
                "url": self.link,
                "year": self.year,
            },
        )


JOURNALS = ("IEEE TIP", "IEEE Access")

PAPERS = {
    "action_mamba": Paper(
        "Video Mamba Suite: State Space Model as a Versatile Alternative for Video Understanding",
        "Guo Chen, Yifei Huang, Jilan Xu, Baoqi Pei, Zhe Chen, Zhiqi Li, Jiahao Wang, Kunchang Li, Tong Lu, "
        "Limin Wang",
        "arXiv",
        2024,
        ARXIV + "2403.09626",
    ),
    "actionformer": Paper(
        "ActionFormer: Localizing Moments of Actions with Transformers",
        "Chen-Lin Zhang, Jianxin Wu, Yin Li",
        "ECCV",
        2022,
        ARXIV + "2202.07925",
    ),
    "afsd": Paper(
        "Learning Salient Boundary Feature for Anchor-free Temporal Action Localization",
        "Chuming Lin, Chengming Xu, Donghao Luo, Yabiao Wang, Ying Tai, Chengjie Wang, Jilin Li, "
        "Feiyue Huang, Yanwei Fu",
        "CVPR",
        2021,
        ARXIV + "2103.13137",
    ),
    "bilstm": Paper(
        "Action Recognition in Video Sequences using Deep Bi-directional LSTM with CNN Features",
        "Amin Ullah, Jamil Ahmad, Khan Muhammad, Muhammad Sajjad, Sung Wook Baik",
        "IEEE Access",
        2017,
        "https://doi.org/10.1109/ACCESS.2017.2778011",
    ),
    "bmn": Paper(
        "BMN: Boundary-Matching Network for Temporal Action Proposal Generation",
        "Tianwei Lin, Xiao Liu, Xin Li, Errui Ding, Shilei Wen",
        "ICCV",
        2019,
        ARXIV + "1907.09702",
    ),
    "bsn": Paper(
        "BSN: Boundary Sensitive Network for Temporal Action Proposal Generation",
        "Tianwei Lin, Xu Zhao, Haisheng Su, Chongjing Wang, Ming Yang",
        "ECCV",
        2018,
        ARXIV + "1806.02964",
    ),
    "gaf": Paper(
        "Generative Model-Based Feature Attention Module for Video Action Analysis",
        "Guiqin Wang, Peng Zhao, Cong Zhao, Jing Huang, Siyan Guo, Shusen Yang",
        "arXiv",
        2025,
        ARXIV + "2508.13565",
    ),
    "prn": Paper(
        "Proposal Relation Network for Temporal Action Detection",
        "Xiang Wang, Zhiwu Qing, Ziyuan Huang, Yutong Feng, Shiwei Zhang, Jianwen Jiang, Mingqian Tang, "
        "Changxin Gao, Nong Sang",
        "ActivityNet challenge",
        2021,
        ARXIV + "2106.11812",
    ),
    "ssn": Paper(
        "Temporal Action Detection with Structured Segment Networks",
        "Yue Zhao, Yuanjun Xiong, Limin Wang, Zhirong Wu, Xiaoou Tang, Dahua Lin",
        "ICCV",
        2017,
        ARXIV + "1704.06228",
    ),
    "stale": Paper(
        "Zero-Shot Temporal Action Detection via Vision-Language Prompting",
        "Sauradip Nag, Xiatian Zhu, Yi-Zhe Song, Tao Xiang",
        "ECCV",
        2022,
        ARXIV + "2207.08184",
    ),
    "tadtr": Paper(
        "End-to-End Temporal Action Detection with Transformer",
        "Xiaolong Liu, Qimeng Wang, Yao Hu, Xu Tang, Shiwei Zhang, Song Bai, Xiang Bai",
        "IEEE TIP",
        2022,
        ARXIV + "2106.10271",
    ),
    "tcanet": Paper(
        "Temporal Context Aggregation Network for Temporal Action Proposal Refinement",
        "Zhiwu Qing, Haisheng Su, Weihao Gan, Dongliang Wang, Wei Wu, Xiang Wang, Yu Qiao, Junjie Yan, "
        "Changxin Gao, Nong Sang",
        "CVPR",
        2021,
        ARXIV + "2103.13141",
    ),
    "temporalmaxer": Paper(
        "TemporalMaxer: Maximize Temporal Context with only Max Pooling for Temporal Action Localization",
        "Tuan N. Tang, Kwonyoung Kim, Kwanghoon Sohn",
        "arXiv",
        2023,
        ARXIV + "2303.09055",
    ),
    "tridet": Paper(
        "TriDet: Temporal Action Detection with Relative Boundary Modeling",
        "Dingfeng Shi, Yujie Zhong, Qiong Cao, Lin Ma, Jia Li, Dacheng Tao",
        "CVPR",
        2023,
        ARXIV + "2303.07347",
    ),
}
