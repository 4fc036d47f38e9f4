"""The papers of models and data sets: title, authors, venue, year and address. The one place where they are
kept.

A model or benchmark without an entry is this study's own, or a plug-in's. A test compares the titles with the
docstrings of the modules.
"""

from dataclasses import dataclass

ARXIV, DOI = "https://arxiv.org/abs/", "https://doi.org/"


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
        return self.authors.split(",")[0].split()[-1].strip("{}")

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
        fields = {
            "author": " and ".join(name.strip() for name in self.authors.split(",")),
            "title": f"{{{self.title}}}",  # braces keep the capitals
            container: self.venue,
            "url": self.link,
            "year": self.year,
        }
        if self.link.startswith(DOI):
            fields["doi"] = self.link.removeprefix(DOI)
        return entry(kind, key, fields)


DOI = "https://doi.org/"
JOURNALS = (
    "IEEE TIP",
    "IEEE Access",
    "IJCV",
    "Neurocomputing",
    "Computers & Graphics",
    "Computer Methods and Programs in Biomedicine",
    "Computer Vision and Image Understanding",
)

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
        2018,
        DOI + "10.1109/ACCESS.2017.2778011",
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

# The papers of the recordings. Benchmarks made from them have the same paper: hapt_recomposed has hapt's.
DATA_PAPERS = {
    "hapt": Paper(
        "Transition-Aware Human Activity Recognition Using Smartphones",
        "Jorge-L. Reyes-Ortiz, Luca Oneto, Albert Samà, Xavier Parra, Davide Anguita",
        "Neurocomputing",
        2016,
        DOI + "10.1016/j.neucom.2015.07.085",
    ),
    "sfinge3d": Paper(
        "SFINGE 3D: A novel benchmark for online detection and recognition of heterogeneous hand gestures "
        "from 3D fingers' trajectories",
        "Ariel Caputo, Andrea Giachetti, Franca Giannini, Katia Lupinetti, Marina Monti, Marco Pegoraro, "
        "Andrea Ranieri",
        "Computers & Graphics",
        2020,
        DOI + "10.1016/j.cag.2020.07.014",
    ),
    "urfall": Paper(
        "Human fall detection on embedded platform using depth maps and wireless accelerometer",
        "Bogdan Kwolek, Michal Kepski",
        "Computer Methods and Programs in Biomedicine",
        2014,
        DOI + "10.1016/j.cmpb.2014.09.005",
    ),
    "50salads": Paper(
        "Combining embedded accelerometers with computer vision for recognizing food preparation activities",
        "Sebastian Stein, Stephen J. McKenna",
        "UbiComp",
        2013,
        DOI + "10.1145/2493432.2493482",
    ),
    "thumos14": Paper(
        "The THUMOS Challenge on Action Recognition for Videos 'in the Wild'",
        "Haroon Idrees, Amir R. Zamir, Yu-Gang Jiang, Alex Gorban, Ivan Laptev, Rahul Sukthankar, "
        "Mubarak Shah",
        "Computer Vision and Image Understanding",
        2017,
        ARXIV + "1604.06182",
    ),
    "multithumos": Paper(
        "Every Moment Counts: Dense Detailed Labeling of Actions in Complex Videos",
        "Serena Yeung, Olga Russakovsky, Ning Jin, Mykhaylo Andriluka, Greg Mori, Li Fei-Fei",
        "IJCV",
        2018,
        ARXIV + "1507.05738",
    ),
    "activitynet": Paper(
        "ActivityNet: A Large-Scale Video Benchmark for Human Activity Understanding",
        "Fabian {Caba Heilbron}, Victor Escorcia, Bernard Ghanem, Juan Carlos Niebles",
        "CVPR",
        2015,
        DOI + "10.1109/CVPR.2015.7298698",
    ),
    "hacs": Paper(
        "HACS: Human Action Clips and Segments Dataset for Recognition and Temporal Localization",
        "Hang Zhao, Antonio Torralba, Lorenzo Torresani, Zhicheng Yan",
        "ICCV",
        2019,
        ARXIV + "1712.09374",
    ),
    "epic_kitchens": Paper(
        "Rescaling Egocentric Vision: Collection, Pipeline and Challenges for EPIC-KITCHENS-100",
        "Dima Damen, Hazel Doughty, Giovanni Maria Farinella, Antonino Furnari, Evangelos Kazakos, Jian Ma, "
        "Davide Moltisanti, Jonathan Munro, Toby Perrett, Will Price, Michael Wray",
        "IJCV",
        2022,
        ARXIV + "2006.13256",
    ),
    "ego4d_mq": Paper(
        "Ego4D: Around the World in 3,000 Hours of Egocentric Video",
        "Kristen Grauman, others",
        "CVPR",
        2022,
        ARXIV + "2110.07058",
    ),
    "fineaction": Paper(
        "FineAction: A Fine-Grained Video Dataset for Temporal Action Localization",
        "Yi Liu, Limin Wang, Yali Wang, Xiao Ma, Yu Qiao",
        "IEEE TIP",
        2022,
        ARXIV + "2105.11107",
    ),
    "charades": Paper(
        "Hollywood in Homes: Crowdsourcing Data Collection for Activity Understanding",
        "Gunnar A. Sigurdsson, Gül Varol, Xiaolong Wang, Ali Farhadi, Ivan Laptev, Abhinav Gupta",
        "ECCV",
        2016,
        ARXIV + "1604.01753",
    ),
}


def paper_of(name: str) -> Paper | None:
    """The paper of a model or a benchmark; None: it has none."""
    data = [key for key in DATA_PAPERS if name == key or name.startswith(f"{key}_")]
    return PAPERS.get(name) or (DATA_PAPERS[data[0]] if data else None)
